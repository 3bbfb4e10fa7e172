//! Metrics in Prometheus' text format: one file per family, base units, closed label sets.
//!
//! Passed down as `Arc<Metrics>`; there is no global registry.

mod cache;
mod downstream;
mod flight;
mod process;
mod upstream;
mod warm;

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Tally;

pub use cache::CacheMetrics;
pub use downstream::DownstreamMetrics;
pub use flight::FlightMetrics;
pub use process::ProcessMetrics;
pub use upstream::UpstreamMetrics;
pub use warm::WarmMetrics;

/// All metrics of one instance.
#[derive(Debug)]
pub struct Metrics {
    /// What clients asked and got.
    pub downstream: DownstreamMetrics,
    /// What upstreams were asked and gave.
    pub upstream: UpstreamMetrics,
    /// Fetches under way.
    pub flight: FlightMetrics,
    /// What is on disk.
    pub cache: CacheMetrics,
    /// What was brought before anybody asked for it.
    pub warm: WarmMetrics,
    /// What the process itself holds.
    pub process: ProcessMetrics,
    /// What outlives a restart; fed by the other families.
    pub tally: Arc<Tally>,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("layby");
        let tally = Arc::new(Tally::default());
        Self {
            downstream: DownstreamMetrics::register(&mut registry, Arc::clone(&tally)),
            upstream: UpstreamMetrics::register(&mut registry, Arc::clone(&tally)),
            flight: FlightMetrics::register(&mut registry),
            cache: CacheMetrics::register(&mut registry),
            warm: WarmMetrics::register(&mut registry),
            process: ProcessMetrics::register(&mut registry),
            tally,
            registry,
        }
    }
}

impl Metrics {
    /// The text that a scrape gets.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// One of what a gauge counts, for as long as it lives.
#[derive(Debug)]
#[must_use = "it counts only while it is kept"]
pub struct Counted(Gauge);

impl Counted {
    /// One more.
    pub fn by(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that dashboards depend on.
    #[test]
    fn every_documented_metric_is_exported() {
        let metrics = Metrics::default();
        metrics.downstream.request("blob", 200, "hit");
        metrics.downstream.served("docker.io", "cache", 1);
        metrics
            .downstream
            .first_byte("hit", std::time::Duration::from_millis(1));
        metrics.downstream.refused("total");
        metrics.upstream.request("docker.io", "blob", "200");
        metrics.upstream.received("docker.io", 1);
        metrics.upstream.wasted("docker.io", 1);
        metrics.upstream.resumed("docker.io");
        metrics.upstream.token_exchange("docker.io", "ok");
        metrics.upstream.rate_limit_remaining("docker.io", 1);
        metrics.upstream.rate_limit("docker.io", 1);
        let _held = metrics.upstream.held("docker.io", "rate_limit");
        metrics.upstream.verify_failed("docker.io");
        metrics.cache.stale_served("docker.io", "unreachable");
        metrics.cache.bypassed("too_large");
        metrics.cache.evicted("size", 1);
        metrics.warm.images("fetched", 1);
        metrics.warm.run(true);
        let text = metrics.render();
        for name in [
            "requests_total{",
            "served_bytes_total{",
            "connections ",
            "connections_refused_total{",
            "tasks ",
            "upstream_requests_total{",
            "upstream_bytes_total{",
            "upstream_wasted_bytes_total{",
            "time_to_first_byte_seconds_count{",
            "flights ",
            "flight_readers ",
            "collapsed_total ",
            "resumes_total{",
            "verify_failures_total{",
            "stale_served_total{",
            "bypass_total{",
            "evictions_total{",
            "cache_bytes ",
            "cache_blobs ",
            "damaged_blobs_total ",
            "scrub_blobs_total ",
            "scrub_bytes_total ",
            "scrub_rounds_total ",
            "token_exchanges_total{",
            "upstream_ratelimit_limit{",
            "upstream_ratelimit_remaining{",
            "upstream_held{",
            "warm_images_total{",
            "warm_runs_total{",
            "warm_bytes_total ",
            "warm_running ",
        ] {
            assert!(
                text.contains(&format!("\nlayby_{name}")),
                "{name} is missing in\n{text}"
            );
        }
    }
}

//! What upstreams were asked and gave.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Counted;
use crate::telemetry::Tally;

/// Counters of the upstream side.
#[derive(Debug)]
pub struct UpstreamMetrics {
    requests: Family<RequestLabels, Counter>,
    bytes: Family<UpstreamLabel, Counter>,
    wasted: Family<UpstreamLabel, Counter>,
    resumes: Family<UpstreamLabel, Counter>,
    verify_failures: Family<UpstreamLabel, Counter>,
    token_exchanges: Family<OutcomeLabels, Counter>,
    ratelimit_limit: Family<UpstreamLabel, Gauge>,
    ratelimit_remaining: Family<UpstreamLabel, Gauge>,
    held: Family<ReasonLabels, Gauge>,
    tally: Arc<Tally>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    upstream: String,
    kind: &'static str,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    upstream: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    upstream: String,
    reason: &'static str,
}

fn label(upstream: &str) -> UpstreamLabel {
    UpstreamLabel {
        upstream: upstream.to_owned(),
    }
}

impl UpstreamMetrics {
    pub(super) fn register(registry: &mut Registry, tally: Arc<Tally>) -> Self {
        let metrics = Self {
            requests: Family::default(),
            bytes: Family::default(),
            wasted: Family::default(),
            resumes: Family::default(),
            verify_failures: Family::default(),
            token_exchanges: Family::default(),
            ratelimit_limit: Family::default(),
            ratelimit_remaining: Family::default(),
            held: Family::default(),
            tally,
        };
        registry.register(
            "upstream_requests",
            "Requests sent upstream",
            metrics.requests.clone(),
        );
        registry.register(
            "upstream_bytes",
            "Body bytes received",
            metrics.bytes.clone(),
        );
        registry.register(
            "upstream_wasted_bytes",
            "Body bytes received that were already there or had to be thrown away",
            metrics.wasted.clone(),
        );
        registry.register(
            "resumes",
            "Fetches continued after a broken step",
            metrics.resumes.clone(),
        );
        registry.register(
            "verify_failures",
            "Contents that did not match their digest",
            metrics.verify_failures.clone(),
        );
        registry.register(
            "token_exchanges",
            "Tokens asked for",
            metrics.token_exchanges.clone(),
        );
        registry.register(
            "upstream_ratelimit_limit",
            "Pulls allowed per time, as the upstream's last answer said",
            metrics.ratelimit_limit.clone(),
        );
        registry.register(
            "upstream_ratelimit_remaining",
            "Pulls left, as the upstream's last answer said",
            metrics.ratelimit_remaining.clone(),
        );
        registry.register(
            "upstream_held",
            "Hosts and credentials of the upstream that are left alone until they work again",
            metrics.held.clone(),
        );
        metrics
    }

    /// Counts a request; `status` is the code, or the way it failed.
    pub fn request(&self, upstream: &str, kind: &'static str, status: &str) {
        let labels = RequestLabels {
            upstream: upstream.to_owned(),
            kind,
            status: status.to_owned(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts body bytes received.
    pub fn received(&self, upstream: &str, bytes: u64) {
        self.bytes.get_or_create(&label(upstream)).inc_by(bytes);
        self.tally.received(upstream, bytes);
    }

    /// Counts body bytes received in vain.
    pub fn wasted(&self, upstream: &str, bytes: u64) {
        self.wasted.get_or_create(&label(upstream)).inc_by(bytes);
    }

    /// Counts a fetch that went on after a broken step.
    pub fn resumed(&self, upstream: &str) {
        self.resumes.get_or_create(&label(upstream)).inc();
    }

    /// Counts content that did not match its digest.
    pub fn verify_failed(&self, upstream: &str) {
        self.verify_failures.get_or_create(&label(upstream)).inc();
    }

    /// Counts a token exchange.
    pub fn token_exchange(&self, upstream: &str, outcome: &'static str) {
        self.token_exchanges
            .get_or_create(&OutcomeLabels {
                upstream: upstream.to_owned(),
                outcome,
            })
            .inc();
    }

    /// Keeps what the upstream said of our quota.
    pub fn rate_limit_remaining(&self, upstream: &str, pulls: i64) {
        self.ratelimit_remaining
            .get_or_create(&label(upstream))
            .set(pulls);
    }

    /// Keeps what the upstream said of our quota's size.
    pub fn rate_limit(&self, upstream: &str, pulls: i64) {
        self.ratelimit_limit
            .get_or_create(&label(upstream))
            .set(pulls);
    }

    /// Counts a host or a credential that is left alone, as long as the result lives. `reason` is one of a few names.
    pub fn held(&self, upstream: &str, reason: &'static str) -> Counted {
        let labels = ReasonLabels {
            upstream: upstream.to_owned(),
            reason,
        };
        Counted::by(&self.held.get_or_create(&labels))
    }
}

//! Images that were brought before anybody asked for them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of warming, by command and by itself.
#[derive(Debug)]
pub struct WarmMetrics {
    images: Family<OutcomeLabel, Counter>,
    runs: Family<OutcomeLabel, Counter>,
    /// Bytes that were fetched for it.
    pub bytes: Counter,
    /// Runs under way.
    pub running: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl WarmMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            images: Family::default(),
            runs: Family::default(),
            bytes: Counter::default(),
            running: Gauge::default(),
        };
        registry.register(
            "warm_images",
            "Images brought before they were asked for",
            metrics.images.clone(),
        );
        registry.register(
            "warm_runs",
            "Runs that brought images",
            metrics.runs.clone(),
        );
        registry.register(
            "warm_bytes",
            "Bytes fetched by runs that brought images",
            metrics.bytes.clone(),
        );
        registry.register(
            "warm_running",
            "Runs under way that bring images",
            metrics.running.clone(),
        );
        metrics
    }

    /// Counts images of which this became.
    pub fn images(&self, outcome: &'static str, count: u64) {
        self.images
            .get_or_create(&OutcomeLabel { outcome })
            .inc_by(count);
    }

    /// Counts a run that brought everything, or did not.
    pub fn run(&self, is_whole: bool) {
        let outcome = if is_whole { "whole" } else { "failed" };
        self.runs.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

//! What is on disk, and what was served in spite of, or past, it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the cache.
#[derive(Debug)]
pub struct CacheMetrics {
    /// Bytes of committed blobs.
    pub bytes: Gauge,
    /// Number of committed blobs.
    pub blobs: Gauge,
    /// Blobs that were found not to match their digest any more, or that cannot be read.
    pub damaged: Counter,
    /// Blobs that the scrub has read.
    pub scrub_blobs: Counter,
    /// Their bytes.
    pub scrub_bytes: Counter,
    /// Times that it has read everything.
    pub scrub_rounds: Counter,
    /// Proofs of membership that were removed since their content was evicted long ago.
    pub swept_proofs: Counter,
    stale_served: Family<StaleLabels, Counter>,
    bypass: Family<ReasonLabel, Counter>,
    evictions: Family<ReasonLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StaleLabels {
    upstream: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl CacheMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            bytes: Gauge::default(),
            blobs: Gauge::default(),
            damaged: Counter::default(),
            scrub_blobs: Counter::default(),
            scrub_bytes: Counter::default(),
            scrub_rounds: Counter::default(),
            swept_proofs: Counter::default(),
            stale_served: Family::default(),
            bypass: Family::default(),
            evictions: Family::default(),
        };
        registry.register(
            "cache_bytes",
            "Bytes of stored blobs",
            metrics.bytes.clone(),
        );
        registry.register(
            "cache_blobs",
            "Number of stored blobs",
            metrics.blobs.clone(),
        );
        registry.register(
            "damaged_blobs",
            "Stored blobs found not to match their digest any more, or unreadable",
            metrics.damaged.clone(),
        );
        registry.register(
            "scrub_blobs",
            "Stored blobs read and compared with their digest by the scrub",
            metrics.scrub_blobs.clone(),
        );
        registry.register(
            "scrub_bytes",
            "Bytes read by the scrub",
            metrics.scrub_bytes.clone(),
        );
        registry.register(
            "scrub_rounds",
            "Times that the scrub has read everything stored",
            metrics.scrub_rounds.clone(),
        );
        registry.register(
            "swept_proofs",
            "Proofs that a repository has a blob, removed long after the blob was evicted",
            metrics.swept_proofs.clone(),
        );
        registry.register(
            "stale_served",
            "Answers older than their time to live",
            metrics.stale_served.clone(),
        );
        registry.register(
            "bypass",
            "Blobs passed through uncached",
            metrics.bypass.clone(),
        );
        registry.register("evictions", "Blobs evicted", metrics.evictions.clone());
        metrics
    }

    /// Counts an answer served past its time.
    pub fn stale_served(&self, upstream: &str, reason: &'static str) {
        let labels = StaleLabels {
            upstream: upstream.to_owned(),
            reason,
        };
        self.stale_served.get_or_create(&labels).inc();
    }

    /// Counts a blob passed through uncached.
    pub fn bypassed(&self, reason: &'static str) {
        self.bypass.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts evicted blobs.
    pub fn evicted(&self, reason: &'static str, blobs: u64) {
        let counter = self.evictions.get_or_create(&ReasonLabel { reason });
        counter.inc_by(blobs);
    }
}

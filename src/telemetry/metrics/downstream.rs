//! What clients asked and got.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::telemetry::Tally;

/// Counters of the server side.
#[derive(Debug)]
pub struct DownstreamMetrics {
    /// Clients' connections that are being served. The RAII values that move it live in `server/`.
    pub connections: Gauge,
    connections_refused: Family<RefusedLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    served_bytes: Family<ServedLabels, Counter>,
    time_to_first_byte: Family<FirstByteLabels, Histogram>,
    tally: Arc<Tally>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
    cache: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServedLabels {
    upstream: String,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FirstByteLabels {
    cache: &'static str,
}

impl DownstreamMetrics {
    pub(super) fn register(registry: &mut Registry, tally: Arc<Tally>) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            connections_refused: Family::default(),
            requests: Family::default(),
            served_bytes: Family::default(),
            time_to_first_byte: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0005, 4.0, 9))
            }),
            tally,
        };
        registry.register(
            "connections",
            "Clients' connections being served",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_refused",
            "Clients' connections beyond a limit",
            metrics.connections_refused.clone(),
        );
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "served_bytes",
            "Body bytes sent",
            metrics.served_bytes.clone(),
        );
        registry.register(
            "time_to_first_byte_seconds",
            "From a request's head to the first byte of its answer's body",
            metrics.time_to_first_byte.clone(),
        );
        metrics
    }

    /// Counts a connection that was not taken; `reason` says which limit was reached.
    pub fn refused(&self, reason: &'static str) {
        self.connections_refused
            .get_or_create(&RefusedLabels { reason })
            .inc();
    }

    /// Counts an answered request.
    pub fn request(&self, route: &'static str, status: u16, cache: &'static str) {
        self.requests
            .get_or_create(&RequestLabels {
                route,
                status,
                cache,
            })
            .inc();
    }

    /// Counts body bytes sent; `source` says where they came from.
    pub fn served(&self, upstream: &str, source: &'static str, bytes: u64) {
        let labels = ServedLabels {
            upstream: upstream.to_owned(),
            source,
        };
        self.served_bytes.get_or_create(&labels).inc_by(bytes);
        self.tally.served(upstream, source == "cache", bytes);
    }

    /// Takes in the time that a client waited for its first body byte.
    pub fn first_byte(&self, cache: &'static str, after: Duration) {
        self.time_to_first_byte
            .get_or_create(&FirstByteLabels { cache })
            .observe(after.as_secs_f64());
    }
}

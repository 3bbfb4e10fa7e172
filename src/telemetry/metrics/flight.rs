//! Fetches under way.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Gauges of the fetch-once engine. The RAII values that move them live in `flight/`.
#[derive(Debug)]
pub struct FlightMetrics {
    /// Fetches under way.
    pub flights: Gauge,
    /// Responses that are fed by a fetch under way.
    pub readers: Gauge,
    /// Requests that joined a fetch instead of starting one.
    pub collapsed: Counter,
}

impl FlightMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            flights: Gauge::default(),
            readers: Gauge::default(),
            collapsed: Counter::default(),
        };
        registry.register("flights", "Fetches under way", metrics.flights.clone());
        registry.register(
            "flight_readers",
            "Responses fed by a fetch",
            metrics.readers.clone(),
        );
        registry.register(
            "collapsed",
            "Requests that joined a fetch under way",
            metrics.collapsed.clone(),
        );
        metrics
    }
}

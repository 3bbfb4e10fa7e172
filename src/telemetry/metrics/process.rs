//! What the process itself holds.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Gauges of the process. The RAII values that move them live in `runtime/`.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// Tasks that have not ended.
    pub tasks: Gauge,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            tasks: Gauge::default(),
        };
        registry.register("tasks", "Tasks that have not ended", metrics.tasks.clone());
        metrics
    }
}

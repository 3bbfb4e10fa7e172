//! Logs and metrics.
//!
//! Imports nothing of this crate but `config` values.

pub mod metrics;

pub use metrics::Metrics;

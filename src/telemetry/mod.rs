//! Logs and metrics.
//!
//! Imports nothing of this crate but `config` values.

pub mod logs;
pub mod metrics;

pub use logs::Logs;
pub use metrics::{Counted, Metrics};

//! Logs and metrics.
//!
//! Imports nothing of this crate but `config` values.

pub(crate) mod json_lines;
pub mod logs;
pub mod metrics;
mod tally;

pub use logs::Logs;
pub use metrics::{Counted, Metrics};
pub use tally::{Counts, Tally};

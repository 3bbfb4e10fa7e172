//! What every long-running part stands on: owned tasks, shutdown, readiness, the clock.
//!
//! The only place that spawns tasks. Imports `telemetry` for the gauge of tasks.

mod clock;
mod notify;
mod pipe;
mod pool;
mod readiness;
mod signals;
mod tasks;

pub use clock::Clock;
pub use notify::Notifier;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use pool::Pool;
pub use readiness::{Latch, Readiness};
pub use signals::Signals;
pub use tasks::Tasks;

//! What every long-running part stands on: owned tasks, shutdown, readiness, the clock.
//!
//! The only place that spawns tasks. Imports `telemetry` for the gauge of tasks.

mod clock;
mod heap;
mod notify;
mod pipe;
mod pool;
mod readiness;
mod signals;
mod tasks;

pub use clock::Clock;
pub use heap::keep_freed_memory;
pub use notify::Notifier;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use pool::Pool;
pub use readiness::{Latch, Readiness};
pub use signals::Signals;
pub use tasks::Tasks;

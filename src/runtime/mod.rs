//! What every long-running part stands on: owned tasks, shutdown, the clock.
//!
//! The only place that spawns tasks. Imports nothing of this crate.

mod clock;
mod tasks;

pub use clock::Clock;
pub use tasks::Tasks;

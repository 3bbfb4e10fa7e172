//! Wall-clock time, which tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells the wall-clock time that freshness and records are measured in. Cheap to clone; clones share their offset.
///
/// Time-outs do not use it: they run on tokio's timer, which tests pause.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Milliseconds added to the system's time.
    offset_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Now.
    pub fn now(&self) -> SystemTime {
        let offset = self.offset_ms.load(Ordering::Relaxed);
        let shift = Duration::from_millis(offset.unsigned_abs());
        if offset >= 0 {
            SystemTime::now() + shift
        } else {
            SystemTime::now() - shift
        }
    }

    /// A point on the timer's clock, which never goes back, moved as this clock is: for how long ago something was.
    pub fn monotonic(&self) -> Instant {
        let offset = self.offset_ms.load(Ordering::Relaxed);
        Instant::now() + Duration::from_millis(u64::try_from(offset).unwrap_or_default())
    }

    /// Moves this clock and its clones forward.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

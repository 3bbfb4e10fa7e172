//! Whether this instance should be sent requests: what `/readyz` says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Ready while no [`Latch`] is held and shutdown has not begun. Cheap to clone; clones are the same instance's.
///
/// It says nothing about upstreams: what is cached is served without them.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// What is awaited, once per latch held.
    awaited: Mutex<Vec<&'static str>>,
    stopping: AtomicBool,
}

/// A condition that is not yet met. Dropping it says that it now is.
#[derive(Debug)]
#[must_use = "the condition counts as met when the latch is dropped"]
pub struct Latch {
    readiness: Readiness,
    what: &'static str,
}

impl Readiness {
    /// Nothing awaited yet, hence ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the instance from being ready until the latch is dropped; `what` names the condition, such as `"store"`.
    pub fn latch(&self, what: &'static str) -> Latch {
        self.0.awaited.lock().push(what);
        Latch {
            readiness: self.clone(),
            what,
        }
    }

    /// Says that shutdown has begun: not ready any more, for good.
    pub fn begin_shutdown(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Whether requests are welcome.
    pub fn is_ready(&self) -> bool {
        !self.0.stopping.load(Ordering::Acquire) && self.0.awaited.lock().is_empty()
    }

    /// Why the instance is not ready, for people: empty when it is.
    pub fn pending(&self) -> Vec<&'static str> {
        let mut pending = self.0.awaited.lock().clone();
        if self.0.stopping.load(Ordering::Acquire) {
            pending.push("shutting down");
        }
        pending
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut awaited = self.readiness.0.awaited.lock();
        if let Some(at) = awaited.iter().position(|what| *what == self.what) {
            awaited.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_latch_is_dropped() {
        let readiness = Readiness::new();
        let store = readiness.latch("store");
        let listeners = readiness.latch("listeners");
        assert!(!readiness.is_ready());
        drop(store);
        assert_eq!(readiness.pending(), ["listeners"]);
        drop(listeners);
        assert!(readiness.is_ready());
    }

    #[test]
    fn never_ready_again_once_shutdown_has_begun() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.begin_shutdown();
        drop(readiness.latch("store"));
        assert!(!readiness.is_ready());
        assert_eq!(readiness.pending(), ["shutting down"]);
    }
}

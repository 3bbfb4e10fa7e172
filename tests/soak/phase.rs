//! A stretch of time in which certain things may happen, and what came of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layby::oci::Digest;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: everything is served, and sent once.
    Calm,
    /// Upstreams break off and stall in the middle of blobs, and clients leave: everything is served.
    Mild,
    /// Anything: what is served is right.
    Rough,
}

impl Kind {
    /// The kind of a phase, by its number.
    pub(crate) fn of(number: u64) -> Self {
        match number % 4 {
            0 => Self::Calm,
            1 => Self::Mild,
            _ => Self::Rough,
        }
    }

    /// Whether clients may be refused or cut off.
    pub(crate) fn may_fail(self) -> bool {
        self == Self::Rough
    }

    /// Whether clients leave before they have all.
    pub(crate) fn clients_leave(self) -> bool {
        self != Self::Calm
    }
}

/// A phase.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) kind: Kind,
    end: Instant,
    requests: AtomicU64,
    unserved: AtomicU64,
    /// How often a client left in the middle of this.
    left: Mutex<HashMap<Digest, u64>>,
    /// How often the program ended.
    ended: AtomicU64,
    progress: Notify,
}

impl Phase {
    pub(crate) fn new(kind: Kind, length: Duration) -> Self {
        Self {
            kind,
            end: Instant::now() + length,
            requests: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
            left: Mutex::default(),
            ended: AtomicU64::new(0),
            progress: Notify::new(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    pub(crate) fn has_asked(&self, is_served: bool) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.unserved
            .fetch_add(u64::from(!is_served), Ordering::SeqCst);
        self.progress.notify_waiters();
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn unserved(&self) -> u64 {
        self.unserved.load(Ordering::SeqCst)
    }

    pub(crate) fn has_left(&self, digest: &Digest) {
        *self.left.lock().entry(digest.clone()).or_default() += 1;
    }

    pub(crate) fn left(&self, digest: &Digest) -> u64 {
        self.left.lock().get(digest).copied().unwrap_or_default()
    }

    pub(crate) fn program_ended(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn ends_of_the_program(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns when clients have made so many more requests, or after a moment in which they could not.
    pub(crate) async fn after(&self, requests: u64) {
        let goal = self.requests() + requests;
        let reached = async {
            loop {
                let progress = self.progress.notified();
                if self.requests() >= goal || self.is_over() {
                    return;
                }
                progress.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(700), reached).await;
    }
}

//! Keeps the store's set of what pinned images lead to as it should be.
//!
//! All of it is found out at start, when the pins change, and once an hour, one after the other: that alone takes away
//! what is pinned no longer. In between, what a pinned image newly leads to is added when the image is asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::oci::{Digest, DigestSet, Tag};
use crate::proxy::Place;
use crate::runtime::{Clock, Tasks};
use crate::store::Store;

use super::pins::Pins;

/// What is never evicted, for as long as a proxy runs.
#[derive(Debug)]
pub(in crate::proxy) struct Protection {
    store: Arc<Store>,
    pins: Arc<Pins>,
    clock: Clock,
    /// What was added since the walk under way began, which may have passed it by.
    added: Mutex<DigestSet>,
    /// One walk at a time.
    walking: tokio::sync::Mutex<()>,
    changed: Notify,
}

impl Protection {
    pub(super) fn new(store: Arc<Store>, pins: Arc<Pins>, clock: Clock) -> Self {
        Self {
            store,
            pins,
            clock,
            added: Mutex::default(),
            walking: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Keeps it up to date, as a task of `tasks`.
    pub(super) fn keep(self: &Arc<Self>, tasks: &Tasks) {
        let this = Arc::clone(self);
        tasks.spawn_until_stop(async move {
            loop {
                let started = Instant::now();
                let next = match this.find_out().await {
                    Ok(()) => EVERY,
                    Err(error) => {
                        warn!(%error, "what pinned images lead to cannot be told; until it can, nothing new is evicted by it");
                        RETRY
                    }
                };
                // A walk that takes long is not begun again at once.
                tokio::time::sleep(started.elapsed().saturating_mul(REST)).await;
                let _ = tokio::time::timeout(next, this.changed.notified()).await;
            }
        });
    }

    /// Finds out what pinned images lead to, and has the store keep that. Takes as long as they are many.
    pub(super) async fn find_out(&self) -> io::Result<()> {
        let _turn = self.walking.lock().await;
        *self.added.lock() = DigestSet::default();
        let (store, pins, now) = (
            Arc::clone(&self.store),
            Arc::clone(&self.pins),
            self.clock.now(),
        );
        let walk = tokio::task::spawn_blocking(move || pins.protected(&store, now));
        let mut parts = walk.await.map_err(io::Error::other)??.into_parts();
        let added = self.added.lock();
        parts.extend(&added);
        self.store.set_pinned(parts);
        Ok(())
    }

    /// Has what is pinned no longer found out soon.
    pub(super) fn refresh(&self) {
        self.changed.notify_one();
    }

    /// Notes what an image leads to, in case that it is pinned, or that a pinned one leads to it.
    pub(in crate::proxy) fn note(
        &self,
        place: &Place,
        tag: Option<&Tag>,
        digest: &Digest,
        parts: &[Digest],
    ) {
        if !self.store.is_pinned(digest) && !self.pins.are_for(place, tag, digest) {
            return;
        }
        let mut added = self.added.lock();
        for part in parts {
            added.insert(part);
        }
        self.store.pin_also(parts);
    }
}

/// What is pinned is found out anew so often: images go, and tags move on.
const EVERY: Duration = Duration::from_hours(1);

/// The same where it could not be told.
const RETRY: Duration = Duration::from_mins(1);

/// So many times as long as a walk took nothing follows upon it.
const REST: u32 = 10;

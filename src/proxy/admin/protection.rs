//! Keeps the store's set of what pinned images lead to as it should be.
//!
//! All of it is found out at start, when the pins change, and once an hour, one after the other: that alone takes away
//! what is pinned no longer. In between, what a pinned image newly leads to is added when the image is asked for, and stays
//! until the walk after the next at least.

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
    added: Mutex<Added>,
    /// One walk at a time.
    walking: tokio::sync::Mutex<()>,
    changed: Notify,
}

/// What was added between two walks. A tag's record is written behind the answer that it is about, so a walk may pass by
/// what was added shortly before it began, too.
#[derive(Debug, Default)]
struct Added {
    /// Since the walk under way began.
    since: DigestSet,
    /// Before it, back to the one before that has succeeded.
    before: DigestSet,
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
            let mut is_known = false;
            loop {
                let started = Instant::now();
                let next = match this.find_out().await {
                    Ok(()) => {
                        is_known = true;
                        EVERY
                    }
                    Err(error) if is_known => {
                        warn!(%error, "what pinned images lead to cannot be told; what it was last, and what is asked for since, stays");
                        RETRY
                    }
                    Err(error) => {
                        warn!(%error, "what pinned images lead to cannot be told; until then nothing is evicted");
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
        {
            let mut added = self.added.lock();
            let since = std::mem::take(&mut added.since);
            added.before.extend(&since);
        }
        let (store, pins, now) = (
            Arc::clone(&self.store),
            Arc::clone(&self.pins),
            self.clock.now(),
        );
        let walk = tokio::task::spawn_blocking(move || pins.protected(&store, now));
        let mut parts = walk.await.map_err(io::Error::other)??.into_parts();
        let mut added = self.added.lock();
        parts.extend(&std::mem::take(&mut added.before));
        parts.extend(&added.since);
        self.store.set_pinned(parts);
        Ok(())
    }

    /// Has what is pinned no longer found out soon.
    pub(super) fn refresh(&self) {
        self.changed.notify_one();
    }

    /// Notes what an image leads to, in case that it is pinned, or that a pinned one leads to it; `parts` are asked for only
    /// then.
    pub(in crate::proxy) fn note(
        &self,
        place: &Place,
        tag: Option<&Tag>,
        digest: &Digest,
        parts: impl FnOnce() -> Vec<Digest>,
    ) {
        if !self.store.is_pinned(digest) && !self.pins.are_for(place, tag, digest) {
            return;
        }
        let parts = parts();
        let mut added = self.added.lock();
        for part in &parts {
            added.since.insert(part);
        }
        self.store.pin_also(&parts);
    }
}

/// What is pinned is found out anew so often: images go, and tags move on.
const EVERY: Duration = Duration::from_hours(1);

/// The same where it could not be told.
const RETRY: Duration = Duration::from_mins(1);

/// So many times as long as a walk took nothing follows upon it.
const REST: u32 = 10;

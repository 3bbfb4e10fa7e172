//! Who holds which partial, and which lie idle: there is one writer to a partial at any time.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::files::{Files, at, is_absent};
use crate::store::layout::Layout;
use crate::store::room::Reservation;

/// Names a stage, over restarts too. Says nothing; shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StageKey([u8; 32]);

impl StageKey {
    /// Reads the 64 lower-case digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if !text.bytes().all(is_digit) {
            return None;
        }
        const_hex::decode_to_array(text).ok().map(Self)
    }
}

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&const_hex::encode(self.0))
    }
}

impl fmt::Debug for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageKey({self})")
    }
}

/// All partials of the data directory.
#[derive(Debug)]
pub(in crate::store) struct Shelf {
    files: Arc<dyn Files>,
    layout: Layout,
    slots: Mutex<HashMap<StageKey, Slot>>,
    /// A partial is no longer held.
    freed: Notify,
}

#[derive(Debug)]
enum Slot {
    Held,
    Idle(Idle),
}

/// A partial that nobody writes to.
#[derive(Debug, Clone)]
pub(in crate::store) struct Idle {
    /// When it was last written to.
    pub(in crate::store) since: SystemTime,
    /// The room that it takes.
    pub(in crate::store) space: Arc<Reservation>,
}

impl Shelf {
    pub(in crate::store) fn new(files: Arc<dyn Files>, layout: Layout) -> Self {
        Self {
            files,
            layout,
            slots: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Notes a partial that an earlier life has left.
    pub(in crate::store) fn adopt(&self, key: StageKey, idle: Idle) {
        self.slots.lock().insert(key, Slot::Idle(idle));
    }

    /// Holds a partial, as soon as nobody else does.
    pub(in crate::store) async fn take(self: &Arc<Self>, key: StageKey) -> Hold {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // From here on no release is missed.
            freed.as_mut().enable();
            if let Some(hold) = self.try_take(key) {
                return hold;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>, key: StageKey) -> Option<Hold> {
        let leaves = match self.slots.lock().insert(key, Slot::Held) {
            Some(Slot::Held) => return None,
            Some(Slot::Idle(idle)) => Some(idle),
            None => None,
        };
        Some(Hold {
            shelf: Arc::clone(self),
            key,
            leaves: Mutex::new(leaves),
        })
    }

    /// Whether somebody holds a partial.
    pub(in crate::store) fn is_held(&self, key: &StageKey) -> bool {
        matches!(self.slots.lock().get(key), Some(Slot::Held))
    }

    /// Bytes that idle partials take.
    pub(in crate::store) fn idle_bytes(&self) -> u64 {
        let slots = self.slots.lock();
        let sizes = slots.values().map(|slot| match slot {
            Slot::Held => 0,
            Slot::Idle(idle) => idle.space.held(),
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Removes the partial that has been idle for the longest; whether there was one. Blocks.
    pub(in crate::store) fn remove_oldest(self: &Arc<Self>) -> bool {
        self.remove_first(|_| true, "no room")
    }

    /// Removes the partials that have been idle for `age`. Blocks.
    pub(in crate::store) fn remove_older(self: &Arc<Self>, age: Duration, now: SystemTime) {
        while self.remove_first(|since| is_older(since, age, now), "abandoned") {}
    }

    fn remove_first(
        self: &Arc<Self>,
        wanted: impl Fn(SystemTime) -> bool,
        reason: &'static str,
    ) -> bool {
        let oldest = {
            let slots = self.slots.lock();
            let idle = slots.iter().filter_map(|(key, slot)| match slot {
                Slot::Idle(idle) => Some((idle.since, *key)),
                Slot::Held => None,
            });
            idle.filter(|(since, _)| wanted(*since))
                .min_by_key(|(since, _)| *since)
        };
        let Some((_, key)) = oldest else { return false };
        // Somebody may have taken it up meanwhile: then there may be another.
        if let Some(hold) = self.try_take(key)
            && let Some(idle) = hold.idle()
        {
            match hold.clear() {
                Ok(()) => tracing::info!(
                    partial = %key, size_bytes = idle.space.held(), reason, "an unfinished blob was removed"
                ),
                Err(error) => {
                    hold.leave(None);
                    tracing::warn!(%error, "an unfinished blob cannot be removed; the next start will try again");
                }
            }
        }
        true
    }

    fn release(&self, key: StageKey, leaves: Option<Idle>) {
        let mut slots = self.slots.lock();
        match leaves {
            Some(idle) => slots.insert(key, Slot::Idle(idle)),
            None => slots.remove(&key),
        };
        drop(slots);
        self.freed.notify_waiters();
    }
}

/// The right to write to a partial, given back when dropped: what lay there lies there still, unless it was told
/// otherwise.
#[derive(Debug)]
pub(in crate::store) struct Hold {
    shelf: Arc<Shelf>,
    key: StageKey,
    leaves: Mutex<Option<Idle>>,
}

impl Hold {
    pub(super) fn key(&self) -> &StageKey {
        &self.key
    }

    /// What lies there, and will when this is dropped.
    pub(super) fn idle(&self) -> Option<Idle> {
        self.leaves.lock().clone()
    }

    /// Says what will lie there when this is dropped.
    pub(super) fn leave(&self, idle: Option<Idle>) {
        *self.leaves.lock() = idle;
    }

    /// Removes what lies there: the log first, since a partial without one is worth nothing. Blocks.
    pub(super) fn clear(&self) -> io::Result<()> {
        let Shelf { files, layout, .. } = &*self.shelf;
        remove(&**files, &layout.stage_log(&self.key))?;
        remove(&**files, &layout.stage(&self.key))?;
        self.leave(None);
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let leaves = self.leaves.get_mut().take();
        self.shelf.release(self.key, leaves);
    }
}

/// Whether `age` has passed. A time to come is no age.
pub(in crate::store) fn is_older(since: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(since).is_ok_and(|idle| idle >= age)
}

/// Removes a file that may be missing.
pub(in crate::store) fn remove(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.unlink(path) {
        Err(error) if !is_absent(&error) => Err(at("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Partials that nobody has gone on with for so long are removed.
pub(in crate::store) const ABANDONED_AFTER: Duration = Duration::from_hours(24);

//! The blocking half of a fetch: writes what arrived, hashes it in order, and tells the readers.
//!
//! Each flight has one writer; at most one thread of the pool works for it at a time, so its bytes are written and hashed
//! in order without further locks. Memory is bounded by permits that travel with each piece.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::ports::Stage;
use super::shared::{Failure, Flight};
use crate::oci::{Digest, Hasher};
use crate::runtime::Pool;

/// Readers are woken every so many bytes …
const PUBLISH_BYTES: u64 = 256 * 1024;
/// … or so long after the last time.
pub(super) const PUBLISH_AFTER: Duration = Duration::from_millis(5);
/// Bytes that a thread writes for one flight before it looks after another.
const SLICE_BYTES: usize = 1024 * 1024;

/// A part of the body on its way to the disk.
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// Given back when the piece is dropped: of this flight's bytes in memory, and of all flights'.
    pub(super) _permits: [OwnedSemaphorePermit; 2],
}

/// Writes one flight's bytes.
pub(super) struct Writer {
    flight: Arc<Flight>,
    stage: Arc<dyn Stage>,
    pool: Pool,
    queue: Mutex<Queue>,
    /// Touched only by the thread that drains the queue, and by the leader when the queue is empty.
    hash: Mutex<Hash>,
    published: Mutex<Published>,
    failure: OnceLock<Arc<io::Error>>,
    /// Something landed that was not published yet.
    pub(super) landed: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Whether a thread works, or will.
    scheduled: bool,
}

struct Hash {
    hasher: Option<Hasher>,
    hashed: u64,
}

#[derive(Default)]
struct Published {
    /// Bytes that landed since.
    since: u64,
    at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        flight: Arc<Flight>,
        stage: Arc<dyn Stage>,
        pool: Pool,
        hasher: Hasher,
    ) -> Self {
        Self {
            flight,
            stage,
            pool,
            queue: Mutex::default(),
            hash: Mutex::new(Hash {
                hasher: Some(hasher),
                hashed: 0,
            }),
            published: Mutex::default(),
            failure: OnceLock::new(),
            landed: Notify::new(),
        }
    }

    /// Takes a piece. Never blocks.
    pub(super) fn push(self: &Arc<Self>, piece: Piece) {
        let mut queue = self.queue.lock();
        queue.pieces.push_back(piece);
        if !queue.scheduled {
            queue.scheduled = true;
            drop(queue);
            self.schedule();
        }
    }

    fn schedule(self: &Arc<Self>) {
        let writer = Arc::clone(self);
        self.pool.run(move || writer.drain());
    }

    /// Writes up to a slice of what waits, then lets other flights have the thread.
    fn drain(self: &Arc<Self>) {
        let _guard = FailOnPanic(&self.flight);
        let mut written = 0;
        while written < SLICE_BYTES {
            let piece = {
                let mut queue = self.queue.lock();
                let piece = queue.pieces.pop_front();
                queue.scheduled = piece.is_some();
                piece
            };
            let Some(piece) = piece else { return };
            written += piece.bytes.len();
            self.write(&piece);
        }
        self.schedule();
    }

    fn write(&self, piece: &Piece) {
        if self.failure.get().is_some() {
            return;
        }
        match self.stage.write_at(piece.offset, &piece.bytes) {
            Ok(()) => self.take_in(piece.offset, &piece.bytes),
            Err(error) => {
                // Only this thread sets it, and it was not set above.
                let _ = self.failure.set(Arc::new(error));
            }
        }
    }

    fn take_in(&self, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        let new = self.flight.with(|state| state.landed(offset..offset + len));
        if self.is_due(new) {
            self.flight.publish();
        } else {
            self.landed.notify_one();
        }
        let mut hash = self.hash.lock();
        if offset == hash.hashed {
            if let Some(hasher) = &mut hash.hasher {
                hasher.update(bytes);
            }
            hash.hashed += len;
        }
    }

    /// Whether the readers are to be told now.
    fn is_due(&self, new: u64) -> bool {
        let mut published = self.published.lock();
        published.since += new;
        let due = published.since >= PUBLISH_BYTES
            || published.at.is_none_or(|at| at.elapsed() >= PUBLISH_AFTER);
        if due {
            *published = Published {
                since: 0,
                at: Some(Instant::now()),
            };
        }
        due
    }

    /// Tells the readers what they have not been told.
    pub(super) fn publish(&self) {
        *self.published.lock() = Published {
            since: 0,
            at: Some(Instant::now()),
        };
        self.flight.publish();
    }

    /// Why nothing more is written, if so.
    pub(super) fn failure(&self) -> Option<Arc<io::Error>> {
        self.failure.get().cloned()
    }

    /// The digest of the bytes from the start, and their number. Call once, when the queue is empty.
    pub(super) fn finish(&self) -> (Option<Digest>, u64) {
        let mut hash = self.hash.lock();
        (hash.hasher.take().map(Hasher::finish), hash.hashed)
    }
}

/// A panic in a writer must not leave its flight waiting for ever.
struct FailOnPanic<'a>(&'a Flight);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Failure::Aborted);
            self.0.cancel.cancel();
        }
    }
}

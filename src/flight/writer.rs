//! The blocking half of a fetch: writes what arrived, hashes it in order, and tells the readers.
//!
//! Each flight has one writer; at most one thread of the pool works for it at a time, so its bytes are written and hashed
//! in order without further locks. What was written out of order, or by an earlier fetch, is read back for the hash when
//! the bytes before it are there. Memory is bounded by permits that travel with each piece.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::ports::Stage;
use super::shared::{Failure, Flight};
use super::wreck::Wreck;
use crate::oci::{Digest, Hasher};
use crate::runtime::Pool;

/// Readers are woken every so many bytes …
const PUBLISH_BYTES: u64 = 256 * 1024;
/// … or so long after the last time.
pub(super) const PUBLISH_AFTER: Duration = Duration::from_millis(5);
/// Bytes that a thread writes for one flight before it looks after another.
const SLICE_BYTES: usize = 1024 * 1024;
/// Most bytes that are read back at once.
const READ_BYTES: u64 = 1024 * 1024;

/// A part of the body on its way to the disk.
pub(super) struct Piece {
    pub(super) offset: u64,
    /// One behind the other.
    pub(super) parts: Vec<Bytes>,
    /// Given back when the piece is dropped.
    pub(super) permits: Permits,
}

/// The right to have bytes in memory: of a flight's, and of all flights'.
pub(super) struct Permits {
    pub(super) own: OwnedSemaphorePermit,
    pub(super) all: OwnedSemaphorePermit,
}

impl Permits {
    /// Those for `len` bytes, taken off these; `None` where there are not so many.
    pub(super) fn split(&mut self, len: usize) -> Option<Self> {
        let own = self.own.split(len)?;
        let all = self.all.split(len)?;
        Some(Self { own, all })
    }

    /// Takes those of another piece of the same flight along.
    pub(super) fn merge(&mut self, other: Self) {
        self.own.merge(other.own);
        self.all.merge(other.all);
    }
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
    /// Something landed that was not published yet, or writing failed.
    pub(super) landed: Notify,
    idle: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Whether a thread works, or will.
    scheduled: bool,
}

struct Hash {
    hasher: Hasher,
    hashed: u64,
    buffer: Vec<u8>,
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
                hasher,
                hashed: 0,
                buffer: Vec::new(),
            }),
            published: Mutex::default(),
            failure: OnceLock::new(),
            landed: Notify::new(),
            idle: Notify::new(),
        }
    }

    /// Takes a piece. Never blocks.
    pub(super) fn push(self: &Arc<Self>, piece: Piece) {
        self.queue.lock().pieces.push_back(piece);
        self.start();
    }

    /// Has a thread look whether there is something to do.
    pub(super) fn start(self: &Arc<Self>) {
        let is_scheduled = std::mem::replace(&mut self.queue.lock().scheduled, true);
        if !is_scheduled {
            self.schedule();
        }
    }

    fn schedule(self: &Arc<Self>) {
        let writer = Arc::clone(self);
        self.pool.run(move || writer.drain());
    }

    /// Writes up to a slice of what waits, then lets other flights have the thread.
    fn drain(self: &Arc<Self>) {
        let _guard = FailOnPanic(self);
        let mut done = 0;
        while done < SLICE_BYTES {
            let piece = self.queue.lock().pieces.pop_front();
            let written = piece.map(|piece| self.write(&piece));
            let read = self.catch_up();
            if written.is_none() && read == 0 && self.rest() {
                return;
            }
            done += written.unwrap_or(0) + read;
        }
        self.schedule();
    }

    /// Lets the thread go, unless a piece has come in the meantime.
    fn rest(&self) -> bool {
        let mut queue = self.queue.lock();
        let is_idle = queue.pieces.is_empty();
        if is_idle {
            queue.scheduled = false;
            self.idle.notify_waiters();
        }
        is_idle
    }

    /// Returns the number of bytes.
    fn write(&self, piece: &Piece) -> usize {
        let parts: Vec<_> = piece.parts.iter().map(|part| IoSlice::new(part)).collect();
        if self.failure.get().is_none()
            && let Err(error) = self.place(piece.offset, &parts)
        {
            // What there is room for is kept: it would be asked for again.
            let error = match error.kind() {
                io::ErrorKind::StorageFull => self.place_one_by_one(piece.offset, &parts).err(),
                _ => Some(error),
            };
            if let Some(error) = error {
                self.failed(error);
            }
        }
        parts.iter().map(|part| part.len()).sum()
    }

    fn place_one_by_one(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for part in parts {
            self.place(at, std::slice::from_ref(part))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn place(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.stage.write_at(offset, parts)?;
        self.take_in(offset, parts);
        Ok(())
    }

    fn failed(&self, error: io::Error) {
        // Only the thread that drains the queue sets it.
        let _ = self.failure.set(Arc::new(error));
        self.landed.notify_one();
    }

    fn take_in(&self, offset: u64, parts: &[IoSlice<'_>]) {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let new = self.flight.with(|state| state.landed(offset..offset + len));
        if self.is_due(new) {
            self.flight.publish();
        } else {
            self.landed.notify_one();
        }
        let mut hash = self.hash.lock();
        if offset == hash.hashed {
            for part in parts {
                hash.hasher.update(part);
            }
            hash.hashed += len;
        }
    }

    /// Hashes the next bytes that were written, but not in order. Returns how many.
    ///
    /// After a failed write it goes on, so that those who go on without the disk have the hash of all that is there.
    fn catch_up(&self) -> usize {
        let mut hash = self.hash.lock();
        let hash = &mut *hash;
        let there = self.flight.with(|state| state.present_from(hash.hashed));
        let len = (there - hash.hashed).min(READ_BYTES);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len == 0 {
            // Most fetches are in order and need no buffer, or need it no more.
            hash.buffer = Vec::new();
            return 0;
        }
        hash.buffer.resize(len, 0);
        let buffer = &mut hash.buffer[..];
        match self.stage.read_at(hash.hashed, buffer) {
            Ok(()) => {
                hash.hasher.update(buffer);
                hash.hashed += len as u64;
                len
            }
            Err(error) => {
                self.failed(error);
                0
            }
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

    /// Waits until there is nothing left to do.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if !self.queue.lock().scheduled {
                return;
            }
            idle.await;
        }
    }

    /// The digest of the bytes from the start, and their number.
    pub(super) fn digest(&self) -> (Digest, u64) {
        let hash = self.hash.lock();
        (hash.hasher.clone().finish(), hash.hashed)
    }

    /// What is left for the readers after `error`. Call when idle.
    pub(super) fn wreck(&self, error: Arc<io::Error>) -> Wreck {
        let hash = self.hash.lock();
        let (present, size) = self
            .flight
            .with(|state| (state.present().clone(), state.size()));
        Wreck {
            error,
            stage: Arc::clone(&self.stage),
            present,
            size,
            hashed: hash.hashed,
            hasher: hash.hasher.clone(),
        }
    }
}

/// A panic in a writer must not leave its flight waiting for ever.
struct FailOnPanic<'a>(&'a Writer);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let flight = &self.0.flight;
            flight.fail(Failure::Aborted);
            flight.cancel.cancel();
            self.0.queue.lock().scheduled = false;
            self.0.idle.notify_waiters();
        }
    }
}

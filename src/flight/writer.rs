//! The blocking half of a fetch: writes what arrived, hashes it in order, and tells the readers.
//!
//! Each flight has one writer. At most one thread of the pool writes for it at a time, and at most one hashes, beside it
//! where there is more to write: so its bytes are written and hashed in order. What was written out of order, or by an earlier
//! fetch, is read back for the hash when the bytes before it are there. Memory is bounded by permits that travel with each
//! piece.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
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
/// Bytes that a thread writes or hashes for one flight before it looks after another that waits.
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

impl Piece {
    fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len() as u64
    }
}

/// Writes one flight's bytes.
pub(super) struct Writer {
    flight: Arc<Flight>,
    stage: Arc<dyn Stage>,
    pool: Pool,
    /// What is to be written.
    writing: Mutex<Lane>,
    /// What was written and is to be hashed. Locked before the flight's state: what has landed is in here at once.
    hashing: Mutex<Lane>,
    /// Touched only by the thread that hashes, and by the leader when the lanes are empty.
    hash: Mutex<Hash>,
    published: Mutex<Published>,
    failure: OnceLock<Arc<io::Error>>,
    /// Something landed that was not published yet, or writing failed.
    pub(super) landed: Notify,
    idle: Notify,
}

/// Pieces that wait for a thread.
#[derive(Default)]
struct Lane {
    pieces: VecDeque<Piece>,
    /// Whether a thread works on them, or will.
    scheduled: bool,
}

struct Hash {
    hasher: Hasher,
    hashed: u64,
    buffer: Vec<u8>,
}

/// What is to be hashed next.
enum Next {
    Piece(Piece),
    /// So many bytes that are to be read back.
    Written(usize),
}

#[derive(Default)]
struct Published {
    /// Bytes that landed since.
    since: u64,
    at: Option<Instant>,
}

impl Lane {
    /// Whether a thread must be called.
    fn push(&mut self, piece: Piece) -> bool {
        self.pieces.push_back(piece);
        self.schedule()
    }

    /// The same without a piece.
    fn schedule(&mut self) -> bool {
        !std::mem::replace(&mut self.scheduled, true)
    }

    /// The next piece; without one, the thread may go.
    fn next(&mut self) -> Option<Piece> {
        let next = self.pieces.pop_front();
        self.scheduled = next.is_some();
        next
    }
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
            writing: Mutex::default(),
            hashing: Mutex::default(),
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
        if self.writing.lock().push(piece) {
            self.have(Self::write_all);
        }
    }

    /// Has a thread hash what was there before.
    pub(super) fn start(self: &Arc<Self>) {
        if self.hashing.lock().schedule() {
            self.have(Self::hash_all);
        }
    }

    /// Has a thread do this.
    fn have(self: &Arc<Self>, work: fn(&Arc<Self>)) {
        let writer = Arc::clone(self);
        self.pool.run(move || work(&writer));
    }

    /// Writes what waits; where others wait for a thread, lets them have it after each slice.
    fn write_all(self: &Arc<Self>) {
        let _guard = FailOnPanic(self);
        let mut done = 0;
        while done < SLICE_BYTES || !self.pool.is_short() {
            let next = self.writing.lock().next();
            let Some(piece) = next else {
                self.idle.notify_waiters();
                return;
            };
            done += piece.len();
            self.write(piece);
        }
        self.have(Self::write_all);
    }

    fn write(self: &Arc<Self>, piece: Piece) {
        if self.failure.get().is_some() {
            return;
        }
        let parts: Vec<_> = piece.parts.iter().map(|part| IoSlice::new(part)).collect();
        match self.stage.write_at(piece.offset, &parts) {
            Ok(()) => self.written(piece),
            // What there is room for is kept: it would be asked for again.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                if let Err(error) = self.write_one_by_one(&piece) {
                    self.failed(error);
                }
                self.start();
            }
            Err(error) => self.failed(error),
        }
    }

    /// What is written like this is read back for the hash.
    fn write_one_by_one(&self, piece: &Piece) -> io::Result<()> {
        let mut at = piece.offset;
        for part in &piece.parts {
            self.stage.write_at(at, &[IoSlice::new(part)])?;
            let end = at + part.len() as u64;
            let new = self.flight.with(|state| state.landed(at..end));
            self.tell(new);
            at = end;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) {
        // The first is the one to tell of.
        let _ = self.failure.set(Arc::new(error));
        self.landed.notify_one();
    }

    /// Tells of a piece that was written, and has it hashed: here, as long as nothing else is to be written.
    fn written(self: &Arc<Self>, piece: Piece) {
        let (new, is_first) = {
            let mut hashing = self.hashing.lock();
            let new = self.flight.with(|state| state.landed(piece.range()));
            (new, hashing.push(piece))
        };
        self.tell(new);
        if !is_first {
            return;
        }
        while self.writing.lock().pieces.is_empty() && !self.pool.is_short() {
            if self.hash_next().is_none() {
                return;
            }
        }
        self.have(Self::hash_all);
    }

    fn tell(&self, new: u64) {
        if self.is_due(new) {
            self.flight.publish();
        } else {
            self.landed.notify_one();
        }
    }

    /// Hashes what was written, likewise.
    fn hash_all(self: &Arc<Self>) {
        let _guard = FailOnPanic(self);
        let mut done = 0;
        while done < SLICE_BYTES || !self.pool.is_short() {
            let Some(hashed) = self.hash_next() else {
                return;
            };
            done += hashed;
        }
        self.have(Self::hash_all);
    }

    /// Hashes the next bytes that were written, and tells how many; `None` where there are none and the thread may go.
    ///
    /// After a failed write it goes on, so that those who go on without the disk have the hash of all that is there.
    fn hash_next(&self) -> Option<usize> {
        let mut hash = self.hash.lock();
        let hashed = match self.next_to_hash(hash.hashed) {
            Some(Next::Piece(piece)) => Some(hash.take_in(&piece)),
            Some(Next::Written(len)) => match hash.read_back(&*self.stage, len) {
                Ok(()) => Some(len),
                Err(error) => {
                    self.failed(error);
                    *self.hashing.lock() = Lane::default();
                    None
                }
            },
            None => None,
        };
        if hashed.is_none() {
            // Most fetches are in order and need no buffer, or need it no more.
            hash.buffer = Vec::new();
            self.idle.notify_waiters();
        }
        hashed
    }

    /// What comes behind the first `hashed` bytes. Pieces that came out of order are read back when it is their turn.
    fn next_to_hash(&self, hashed: u64) -> Option<Next> {
        let mut lane = self.hashing.lock();
        while let Some(piece) = lane.next() {
            if piece.offset == hashed {
                return Some(Next::Piece(piece));
            }
        }
        let there = self.flight.with(|state| state.present_from(hashed));
        let len = usize::try_from((there - hashed).min(READ_BYTES)).unwrap_or(usize::MAX);
        lane.scheduled = len > 0;
        lane.scheduled.then_some(Next::Written(len))
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
            // In the order that pieces take.
            if !self.writing.lock().scheduled && !self.hashing.lock().scheduled {
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

impl Hash {
    fn take_in(&mut self, piece: &Piece) -> usize {
        for part in &piece.parts {
            self.hasher.update(part);
        }
        self.hashed += piece.len() as u64;
        piece.len()
    }

    fn read_back(&mut self, stage: &dyn Stage, len: usize) -> io::Result<()> {
        self.buffer.resize(len, 0);
        stage.read_at(self.hashed, &mut self.buffer)?;
        self.hasher.update(&self.buffer);
        self.hashed += len as u64;
        Ok(())
    }
}

/// A panic in a writer must not leave its flight waiting for ever.
struct FailOnPanic<'a>(&'a Writer);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing is to be made of what there is.
            self.0
                .failed(io::Error::other("a writer broke off; please report this"));
            let flight = &self.0.flight;
            flight.fail(Failure::Aborted);
            flight.cancel.cancel();
            self.0.writing.lock().scheduled = false;
            self.0.hashing.lock().scheduled = false;
            self.0.idle.notify_waiters();
        }
    }
}

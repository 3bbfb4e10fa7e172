//! A client's side of a flight: whether it may read, and the reading.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Wish;
use super::ports::{Blob, Chunk, FetchError};
use super::shared::{Failure, Flight};
use super::state::{Admission, Readable, ReaderId};
use crate::telemetry::Metrics;

/// Most bytes that one chunk covers.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A client's place in a flight. Holding it keeps the fetch wanted.
#[derive(Debug)]
pub struct Handle {
    flight: Arc<Flight>,
    source: String,
    proven: bool,
    _presence: Presence,
    metrics: Arc<Metrics>,
}

/// What is known before the first byte is sent.
#[derive(Debug)]
pub enum Head {
    /// It is being fetched, and this client may read it. The size, if the upstream told.
    Fetching(Option<u64>),
    /// It had been committed in the meantime.
    Stored(Arc<dyn Blob>),
}

/// Why a client may not read.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// Its own repository did not answer for the blob.
    Source(FetchError),
    /// The flight failed.
    Failed(Failure),
    /// Nothing was known at the deadline.
    TimedOut,
}

/// Counts one reader of a flight.
#[derive(Debug)]
struct Presence {
    flight: Arc<Flight>,
    metrics: Arc<Metrics>,
}

impl Presence {
    /// For a reader that the flight has counted in.
    fn counted(flight: Arc<Flight>, metrics: Arc<Metrics>) -> Self {
        metrics.flight.readers.inc();
        Self { flight, metrics }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.metrics.flight.readers.dec();
        self.flight.left();
    }
}

impl Handle {
    /// For a reader that the flight has counted in.
    pub(super) fn new(flight: Arc<Flight>, wish: &Wish, metrics: Arc<Metrics>) -> Self {
        Self {
            _presence: Presence::counted(Arc::clone(&flight), Arc::clone(&metrics)),
            flight,
            source: wish.source.key().to_owned(),
            proven: wish.proven,
            metrics,
        }
    }

    /// Waits until it is known whether this client may read, and how much there is.
    pub async fn head(&self, deadline: Instant) -> Result<Head, Refusal> {
        let mut changes = self.flight.watch();
        loop {
            changes.borrow_and_update();
            if let Some(blob) = self.flight.stored.get() {
                return Ok(Head::Stored(Arc::clone(blob)));
            }
            match self
                .flight
                .with(|state| state.admission(&self.source, self.proven))
            {
                // Between the answer and the stage there is a moment without a place to read from.
                Admission::Admitted(size) if self.flight.stage.get().is_some() => {
                    return Ok(Head::Fetching(size));
                }
                Admission::Admitted(_) | Admission::Wait => {}
                Admission::Refused(error) => return Err(Refusal::Source(error)),
                Admission::Failed(why) => return Err(Refusal::Failed(why)),
                // At the next look it is asked for a proof.
                Admission::Unproven => return Err(Refusal::Failed(Failure::Aborted)),
            }
            match timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Refusal::Failed(Failure::Aborted)),
                Err(_) => return Err(Refusal::TimedOut),
            }
        }
    }

    /// Waits until the blob is kept in the store, with its proof, reading nothing; tells `landed` now and then how many of
    /// its bytes have come. For one that was admitted. Unlike a reader it hears of a disk that failed after the digest was
    /// found to match.
    pub async fn kept(&self, landed: impl Fn(u64) + Send) -> Result<(), Failure> {
        let mut changes = self.flight.watch();
        loop {
            changes.borrow_and_update();
            landed(self.flight.with(|state| state.present().len()));
            if let Some(outcome) = self.flight.outcome() {
                return outcome;
            }
            if changes.changed().await.is_err() {
                return Err(Failure::Aborted);
            }
        }
    }

    /// A reader of `range`, or of everything. For a client that was admitted.
    pub fn reader(&self, range: Option<Range<u64>>) -> Reader {
        let size = self.flight.with(|state| state.size());
        let whole = match &range {
            None => true,
            Some(range) => range.start == 0 && size.is_some_and(|size| range.end >= size),
        };
        // The handle is a reader already, so the flight has not been told to stop and counts this one too.
        self.flight.joined(whole);
        let demand = range.clone().filter(|_| !whole);
        let demand = demand.map(|range| self.flight.with(|state| state.reader_wants(range)));
        if demand.is_some() {
            self.flight.wants.notify_one();
        }
        Reader {
            changes: self.flight.watch(),
            position: range.as_ref().map_or(0, |range| range.start),
            end: range.map(|range| range.end),
            demand,
            _presence: Presence::counted(Arc::clone(&self.flight), Arc::clone(&self.metrics)),
            flight: Arc::clone(&self.flight),
        }
    }
}

/// Reads a flight's bytes as they land.
#[derive(Debug)]
pub struct Reader {
    flight: Arc<Flight>,
    changes: watch::Receiver<u64>,
    position: u64,
    /// `None`: to the end, wherever it is.
    end: Option<u64>,
    /// What the flight knows a reader of a part by; `None` for one of the whole.
    demand: Option<ReaderId>,
    _presence: Presence,
}

impl Reader {
    /// Where its next byte belongs.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where it ends; `None`: with the blob.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// Whether it gets every byte, so that the tail is kept from it until the digest matches.
    pub fn is_whole(&self) -> bool {
        self.demand.is_none()
    }

    /// The next bytes; `None` at the end. After an error the client's connection must be broken, unless it is
    /// [`Failure::Wrecked`] and the rest is had from elsewhere. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Chunk, Failure>> {
        loop {
            self.changes.borrow_and_update();
            // A reader of a part is done with its last byte; a reader of the whole hears of the digest first.
            if !self.is_whole() && self.end.is_some_and(|end| self.position >= end) {
                return None;
            }
            match self.look() {
                Readable::Upto(limit) => return self.chunk(limit).map(Ok),
                Readable::End => return None,
                Readable::Failed(why) => return Some(Err(why)),
                Readable::Wait => {}
            }
            if self.changes.changed().await.is_err() {
                return Some(Err(Failure::Aborted));
            }
        }
    }

    /// How far it may read; tells the flight what it waits for.
    fn look(&self) -> Readable<Failure> {
        let (position, whole) = (self.position, self.is_whole());
        let (readable, in_want) = self.flight.with(|state| {
            let in_want = self
                .demand
                .is_some_and(|reader| state.reader_at(reader, position));
            (state.readable(position, whole), in_want)
        });
        if in_want {
            self.flight.wants.notify_one();
        }
        readable
    }

    fn chunk(&mut self, limit: u64) -> Option<Chunk> {
        let limit = self.end.map_or(limit, |end| limit.min(end));
        let range = self.position..limit.min(self.position.saturating_add(CHUNK_BYTES));
        self.position = range.end;
        self.flight.stage.get().map(|stage| stage.chunk(range))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(reader) = self.demand {
            self.flight.with(|state| state.reader_done(reader));
        }
    }
}

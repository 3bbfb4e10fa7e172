//! One flight, as its leader, its writer and its readers share it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::bans::LineUp;
use super::claims::Progress;
use super::ports::{Blob, FetchError, Fetched, Source, Stage};
use super::state::{Abandoned, First, State};
use super::wreck::Wreck;
use crate::config::UpstreamName;
use crate::oci::Digest;

/// What is fetched once: a digest, of one upstream, so that one upstream's slowness or lies never reach another's clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The upstream.
    pub upstream: UpstreamName,
    /// The blob.
    pub digest: Digest,
}

/// Why a flight brought nothing, or not all.
#[derive(Debug, Clone)]
pub enum Failure {
    /// Its sources failed; this is the failure that tells most.
    Source(FetchError),
    /// What came does not match the digest, or not the announced size.
    Corrupt(Arc<str>),
    /// The data directory failed before anything was fetched.
    Store(Arc<io::Error>),
    /// The data directory failed in the middle of the fetch. Readers may go on without it.
    Wrecked(Arc<Wreck>),
    /// Not stored, for this reason: each client has to fetch for itself. The answer of the source that was asked is there for
    /// the first who takes it.
    Bypass(Uncached, Arc<Mutex<Option<Fetched>>>),
    /// The fetch ended without a result: nobody wanted it any more, Layby is stopping, or it panicked.
    Aborted,
}

/// Why a blob is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncached {
    /// Larger than what is stored at all.
    TooLarge,
    /// No room for it.
    NoRoom,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "{error}"),
            Self::Corrupt(what) => f.write_str(what),
            Self::Store(error) => write!(f, "the data directory failed: {error}"),
            Self::Wrecked(wreck) => write!(f, "the data directory failed: {}", wreck.error),
            Self::Bypass(reason, _) => write!(f, "not stored: {reason:?}"),
            Self::Aborted => f.write_str("the fetch was ended"),
        }
    }
}

/// What becomes of somebody who wants to follow a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boarding {
    /// It does, counted as a reader.
    Aboard,
    /// It has to show first that its repository has the blob.
    NeedsProof,
    /// It comes too late: a new flight is to be begun.
    Closed,
}

/// State shared by all who have to do with a flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) key: Key,
    state: Mutex<State<FetchError, Failure>>,
    /// The sources, in the order in which the state numbers them.
    sources: Mutex<Vec<Arc<dyn Source>>>,
    /// Counts what readers should look at again.
    changes: watch::Sender<u64>,
    /// Has the leader plan again.
    pub(super) wants: Notify,
    pub(super) stage: OnceLock<Arc<dyn Stage>>,
    /// The blob, if the leader found it committed.
    pub(super) stored: OnceLock<Arc<dyn Blob>>,
    /// Whether what it fetched is a blob of the store, and the sources that answered have their proofs.
    pub(super) committed: AtomicBool,
    /// Why it is none, though its bytes match: no reader hears of that.
    pub(super) uncommitted: OnceLock<Failure>,
    /// Whether its leader is gone: nothing becomes of it any more.
    over: AtomicBool,
    /// Ends the fetch.
    pub(super) cancel: CancellationToken,
    /// Held while the flight goes on without readers.
    unattended: Mutex<Option<OwnedSemaphorePermit>>,
    unattended_limit: Arc<Semaphore>,
}

impl Flight {
    pub(super) fn new(
        key: Key,
        line_up: LineUp,
        first: First,
        cancel: CancellationToken,
        unattended_limit: Arc<Semaphore>,
    ) -> Self {
        // A range of no bytes cannot be asked for.
        let of_nothing = Digest::of(key.digest.algorithm(), &[]);
        let parallel = if of_nothing.as_ref() == Some(&key.digest) {
            1
        } else {
            line_up.first.parallel()
        };
        let mut state = State::new(line_up.first.key(), first, parallel);
        for source in &line_up.others {
            state.add_source(source.key());
        }
        if line_up.is_strict {
            state.take_from_one();
        }
        let mut sources = vec![line_up.first];
        sources.extend(line_up.others);
        Self {
            key,
            state: Mutex::new(state),
            sources: Mutex::new(sources),
            changes: watch::Sender::new(0),
            wants: Notify::new(),
            stage: OnceLock::new(),
            stored: OnceLock::new(),
            committed: AtomicBool::new(false),
            uncommitted: OnceLock::new(),
            over: AtomicBool::new(false),
            cancel,
            unattended: Mutex::new(None),
            unattended_limit,
        }
    }

    /// Looks at, or moves, the state. Short: no I/O happens under this lock.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State<FetchError, Failure>) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// Has every reader look again.
    pub(super) fn publish(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn source(&self, index: usize) -> Option<Arc<dyn Source>> {
        self.sources.lock().get(index).cloned()
    }

    /// The sources that are asked, or may be.
    pub(super) fn sources(&self) -> Vec<Arc<dyn Source>> {
        self.sources.lock().clone()
    }

    /// Whether it failed in a way that answers newcomers too for a while: by a refusal. A body that broke off is worth
    /// another try at once.
    pub(super) fn lingers(&self) -> bool {
        self.with(|state| lingers(state))
    }

    /// Whether a client of the source `key` can follow it: to read, or to hear why there is nothing to read.
    pub(super) fn is_open_to(&self, key: &str) -> bool {
        self.with(|state| is_open(state, key))
    }

    /// Counts a reader in, who was let in before.
    pub(super) fn joined(&self, full: bool) {
        let mut unattended = self.unattended.lock();
        self.with(|state| state.reader_joined(full));
        unattended.take();
        // A first reader of the whole has the blob filled in order.
        self.wants.notify_one();
    }

    /// Lets a newcomer in, counted as a reader, and with it its source. In one step: whoever is let in while the fetch
    /// goes on has its source asked before the flight gives up.
    pub(super) fn board(&self, source: &Arc<dyn Source>, proven: bool, full: bool) -> Boarding {
        let mut unattended = self.unattended.lock();
        let mut sources = self.sources.lock();
        let boarding = self.with(|state| {
            let key = source.key();
            if !is_open(state, key) {
                return Boarding::Closed;
            }
            let has_failed = state.failure().is_some();
            if !has_failed && !proven && !state.vouches(key) {
                return Boarding::NeedsProof;
            }
            state.reader_joined(full);
            if !has_failed && state.add_source(key) {
                sources.push(Arc::clone(source));
            }
            Boarding::Aboard
        });
        if boarding == Boarding::Aboard {
            unattended.take();
            self.wants.notify_one();
        }
        boarding
    }

    /// Counts a reader out, and decides whether the fetch goes on without any.
    pub(super) fn left(&self) {
        let mut unattended = self.unattended.lock();
        let goes_on = match self.with(State::reader_left) {
            Abandoned::NotYet => return,
            Abandoned::Stop => None,
            Abandoned::Finish => Arc::clone(&self.unattended_limit).try_acquire_owned().ok(),
        };
        if goes_on.is_none() {
            self.with(State::abandon);
            self.cancel.cancel();
        }
        *unattended = goes_on;
    }

    /// What has become of it, as far as the store is concerned; `None`: it is still under way.
    pub(super) fn outcome(&self) -> Option<Result<(), Failure>> {
        // Before all else, since it is set last.
        let is_over = self.over.load(Ordering::Acquire);
        if self.stored.get().is_some() || self.committed.load(Ordering::Acquire) {
            return Some(Ok(()));
        }
        if let Some(why) = self.with(|state| state.failure().cloned()) {
            return Some(Err(why));
        }
        let why = || self.uncommitted.get().cloned();
        is_over.then(|| Err(why().unwrap_or(Failure::Aborted)))
    }

    /// The fetch has ended, so it no longer counts as unattended.
    pub(super) fn ended(&self) {
        self.unattended.lock().take();
    }

    pub(super) fn fail(&self, why: Failure) {
        self.with(|state| match why {
            // Nobody knows which of the bytes are wrong.
            Failure::Corrupt(_) => state.discredited(why),
            _ => state.failed(why),
        });
        self.publish();
    }
}

/// See [`Flight::lingers`].
fn lingers(state: &State<FetchError, Failure>) -> bool {
    matches!(state.failure(), Some(Failure::Source(_))) && !state.has_answer()
}

/// See [`Flight::is_open_to`].
fn is_open(state: &State<FetchError, Failure>, key: &str) -> bool {
    match state.failure() {
        // It may have failed for others, while this repository has not been asked.
        Some(_) => lingers(state) && state.knows(key),
        None => !state.is_ending(),
    }
}

impl Progress for Arc<Flight> {
    fn leader_gone(&self) {
        let has_outcome = self.stored.get().is_some()
            || self.with(|state| state.is_verified() || state.failure().is_some());
        if !has_outcome {
            self.fail(Failure::Aborted);
        }
        self.over.store(true, Ordering::Release);
        self.publish();
    }
}

//! The heart: one upstream fetch, many readers, one file.
//!
//! A [`Flights`] table holds what is being fetched, by upstream and digest. Whoever asks first leads: its fetch runs as a task
//! of its own (`leader/`), in steps that `state/` plans, writes into a stage and publishes what has landed. Every client, the
//! first one included, is a reader of that stage. Knows disk and upstream only through the traits of [`ports`], which `proxy/` adapts. Imports `oci`
//! values, `config` values, `runtime` and `telemetry`.

mod backoff;
mod bans;
mod claims;
mod handle;
mod intervals;
mod leader;
mod lookup;
pub mod ports;
mod shared;
mod state;
mod sync;
mod wreck;
mod writer;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::runtime::{Pool, Tasks};
use crate::telemetry::Metrics;

pub use backoff::Backoff;
pub use handle::{Handle, Head, Reader, Refusal};
pub use shared::{Failure, Key, Uncached};
pub use wreck::Wreck;

use bans::Bans;
use claims::{Claim, Claims as _, Table};
use leader::{Leader, Lease};
use lookup::Seeker;
use ports::{Blob, Blobs, Source};
use shared::{Boarding, Flight};
use state::First;

/// Bytes of all flights that may wait to be written and hashed.
const IN_MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// Fetches that may go on when nobody reads them.
const UNATTENDED: usize = 16;
/// How long a failed flight answers newcomers.
const LINGER: Duration = Duration::from_secs(1);
/// Most threads that write and hash.
const WRITERS: usize = 4;

/// All fetches under way: who asks first leads, whoever comes later joins.
#[derive(Debug)]
pub struct Flights {
    table: Table<Key, Arc<Flight>>,
    bans: Bans,
    blobs: Arc<dyn Blobs>,
    writers: Pool,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    header_timeout: Duration,
    max_blob_size: Option<u64>,
    in_memory: Arc<Semaphore>,
    unattended: Arc<Semaphore>,
}

/// What a request for a blob found.
#[derive(Debug)]
pub enum Opened {
    /// It is committed.
    Stored(Arc<dyn Blob>),
    /// It is being fetched; `led` tells whether for this request.
    Flight {
        /// The reader's place in the flight.
        handle: Handle,
        /// Whether this request started it.
        led: bool,
    },
    /// It is there or under way for another repository: prove first that this one has it too.
    NeedsProof,
    /// It is neither there nor under way, and of a part nobody knows where it is: ask for the size first.
    NeedsSize,
}

/// What somebody asks a blob for, and with what right.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The blob.
    pub key: Key,
    /// Where the asking repository would get it.
    pub source: Arc<dyn Source>,
    /// Whether the repository is proven to have it.
    pub proven: bool,
    /// What of it is wanted.
    pub wanted: Wanted,
}

/// What of a blob is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// Parts of it. Where they are depends on the size.
    Parts,
    /// Parts of it, this one first.
    PartsFrom(Range<u64>),
    /// Parts of it, where they are will be known with the size, which the upstream tells only with the blob.
    PartsSomewhere,
}

/// A look into the store.
#[derive(Debug)]
pub struct Look {
    /// How many commits there were before it.
    commits: u64,
    found: Option<Arc<dyn Blob>>,
}

impl Wanted {
    /// What a flight that is begun for this asks for first; `None`: that has to be found out.
    fn first(&self) -> Option<First> {
        match self {
            Self::Whole | Self::PartsSomewhere => Some(First::Start),
            Self::PartsFrom(range) => Some(First::Part(range.clone())),
            Self::Parts => None,
        }
    }
}

impl Flights {
    /// An empty table over `blobs`. Fetches run as tasks of `tasks`. Each step of a fetch has `header_timeout` for the head of
    /// its answer; blobs over `max_blob_size` are not stored.
    pub fn new(
        blobs: Arc<dyn Blobs>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
        header_timeout: Duration,
        max_blob_size: Option<u64>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            table: Table::default(),
            bans: Bans::default(),
            blobs,
            writers: Pool::growing("layby-writer", WRITERS)?,
            tasks,
            metrics,
            header_timeout,
            max_blob_size,
            in_memory: Arc::new(Semaphore::new(IN_MEMORY_BYTES)),
            unattended: Arc::new(Semaphore::new(UNATTENDED)),
        }))
    }

    /// Finds the blob, joins its fetch, or starts one. `look` is one for it, if there was one; nothing else of the disk is
    /// looked at then.
    pub async fn open(self: &Arc<Self>, wish: &Wish, look: Option<Look>) -> io::Result<Opened> {
        let seek = Seek {
            flights: self,
            wish,
            look,
        };
        lookup::seek(&seek).await
    }

    /// The same as [`Flights::look`] without the disk; `None` where that would not do.
    pub fn look_in_memory(&self, key: &Key) -> Option<Look> {
        let is_flying = self.table.find(key).is_some();
        let commits = self.blobs.commits();
        let is_absent = !is_flying && self.blobs.lacks(&key.digest);
        is_absent.then_some(Look {
            commits,
            found: None,
        })
    }

    /// Looks for a blob in the store, for [`Flights::open`], while whoever asks finds out by what right. `None` where it is
    /// being fetched, so that there is no need to.
    pub async fn look(&self, key: &Key) -> io::Result<Option<Look>> {
        if self.table.find(key).is_some() {
            return Ok(None);
        }
        let commits = self.blobs.commits();
        let found = self.blobs.open(&key.digest).await?;
        Ok(Some(Look { commits, found }))
    }

    /// Size of what is being fetched, if that is known.
    pub fn size_of(&self, key: &Key) -> Option<u64> {
        self.table.find(key)?.with(|state| state.size())
    }

    /// Joins a flight, if it can be joined.
    fn join(&self, flight: &Arc<Flight>, wish: &Wish) -> Option<Opened> {
        let is_whole = wish.wanted == Wanted::Whole;
        match flight.board(&wish.source, wish.proven, is_whole) {
            Boarding::Closed => return None,
            Boarding::NeedsProof => return Some(Opened::NeedsProof),
            Boarding::Aboard => {}
        }
        self.metrics.flight.collapsed.inc();
        let handle = Handle::new(Arc::clone(flight), wish, Arc::clone(&self.metrics));
        Some(Opened::Flight { handle, led: false })
    }

    /// Keeps a failed flight in the table for a moment, so that a crowd that asks again does not become a storm.
    fn linger(self: &Arc<Self>, lease: Lease) {
        self.tasks.spawn_until_stop(async move {
            tokio::time::sleep(LINGER).await;
            drop(lease);
        });
    }
}

/// The look for a blob that somebody asks for.
struct Seek<'a> {
    flights: &'a Arc<Flights>,
    wish: &'a Wish,
    look: Option<Look>,
}

impl Seek<'_> {
    fn join(&self) -> Option<Opened> {
        let flight = self.flights.table.find(&self.wish.key)?;
        self.flights.join(&flight, self.wish)
    }
}

impl Seeker for Seek<'_> {
    type Found = Opened;
    type Error = io::Error;

    fn in_table(&self) -> Option<Opened> {
        self.join()
    }

    fn commits(&self) -> u64 {
        match &self.look {
            Some(look) => look.commits,
            None => self.flights.blobs.commits(),
        }
    }

    async fn in_store(&self) -> io::Result<Option<Opened>> {
        let found = match &self.look {
            Some(look) => look.found.clone(),
            None => self.flights.blobs.open(&self.wish.key.digest).await?,
        };
        Ok(found.map(|blob| {
            if self.wish.proven {
                Opened::Stored(blob)
            } else {
                Opened::NeedsProof
            }
        }))
    }

    fn claim(&self, commits: u64) -> Option<Opened> {
        let Self { flights, wish, .. } = self;
        let Some(first) = wish.wanted.first() else {
            return Some(self.join().unwrap_or(Opened::NeedsSize));
        };
        let line_up = flights.bans.line_up(&wish.key, &wish.source);
        if !wish.proven && line_up.first.key() != wish.source.key() {
            // Another repository's answer says nothing about this one.
            return Some(self.join().unwrap_or(Opened::NeedsProof));
        }
        let mut led = None;
        let claim = flights.table.claim(
            &wish.key,
            |flight| flight.is_open_to(wish.source.key()),
            || {
                let flight = Arc::new(Flight::new(
                    wish.key.clone(),
                    line_up,
                    first,
                    flights.tasks.stopping().child_token(),
                    Arc::clone(&flights.unattended),
                ));
                flight.joined(wish.wanted == Wanted::Whole);
                led = Some(Arc::clone(&flight));
                flight
            },
        );
        match (claim, led) {
            (Claim::Leader(lease), Some(flight)) => {
                let metrics = Arc::clone(&flights.metrics);
                let handle = Handle::new(Arc::clone(&flight), wish, metrics);
                let leader = Leader::new(Arc::clone(flights), flight, commits);
                flights.tasks.spawn(lookup::lead(lease, leader));
                Some(Opened::Flight { handle, led: true })
            }
            (Claim::Follower(flight), _) => flights.join(&flight, wish),
            (Claim::Leader(_), None) => None,
        }
    }
}

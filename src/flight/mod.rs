//! The heart: one upstream fetch, many readers, one file.
//!
//! A [`Flights`] table holds what is being fetched, by upstream and digest. Whoever asks first leads: its fetch runs as a task
//! of its own ([`leader`](self)), writes into a stage and publishes what has landed. Every client, the first one included, is a
//! reader of that stage. Knows disk and upstream only through the traits of [`ports`], which `proxy/` adapts. Imports `oci`
//! values, `config` values, `runtime` and `telemetry`.

mod handle;
mod intervals;
mod leader;
pub mod ports;
mod shared;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::runtime::{Pool, Tasks};
use crate::telemetry::Metrics;

pub use handle::{Handle, Head, Reader, Refusal};
pub use shared::{Failure, Key, Uncached};

use leader::Leader;
use ports::{Blob, Blobs, Source};
use shared::Flight;

/// Bytes of all flights that may wait for the disk.
const IN_MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// Fetches that may go on when nobody reads them.
const UNATTENDED: usize = 16;
/// How long a failed flight answers newcomers.
const LINGER: Duration = Duration::from_secs(1);
/// Threads that write and hash.
const WRITERS: usize = 2;

/// All fetches under way: who asks first leads, whoever comes later joins.
#[derive(Debug)]
pub struct Flights {
    table: Mutex<HashMap<Key, Arc<Flight>>>,
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
    /// Whether all of it is wanted, rather than parts.
    pub full: bool,
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
            table: Mutex::default(),
            blobs,
            writers: Pool::new("layby-writer", WRITERS)?,
            tasks,
            metrics,
            header_timeout,
            max_blob_size,
            in_memory: Arc::new(Semaphore::new(IN_MEMORY_BYTES)),
            unattended: Arc::new(Semaphore::new(UNATTENDED)),
        }))
    }

    /// Finds the blob, joins its fetch, or starts one: table, store, table again.
    pub async fn open(self: &Arc<Self>, wish: &Wish) -> io::Result<Opened> {
        if let Some(found) = self.join(&self.table.lock(), wish) {
            return Ok(found);
        }
        if let Some(blob) = self.blobs.open(&wish.key.digest).await? {
            return Ok(if wish.proven {
                Opened::Stored(blob)
            } else {
                Opened::NeedsProof
            });
        }
        let mut table = self.table.lock();
        if let Some(found) = self.join(&table, wish) {
            return Ok(found);
        }
        let flight = Arc::new(Flight::new(
            wish.key.clone(),
            Arc::clone(&wish.source),
            self.tasks.stopping().child_token(),
            Arc::clone(&self.unattended),
        ));
        table.insert(wish.key.clone(), Arc::clone(&flight));
        let entry = TableEntry {
            flights: Arc::clone(self),
            flight: Arc::clone(&flight),
        };
        flight.joined(wish.full);
        drop(table);
        let handle = Handle::new(Arc::clone(&flight), wish, Arc::clone(&self.metrics));
        self.tasks
            .spawn(Leader::new(Arc::clone(self), flight, entry).run());
        Ok(Opened::Flight { handle, led: true })
    }

    /// Size of what is being fetched, if that is known.
    pub fn size_of(&self, key: &Key) -> Option<u64> {
        self.table.lock().get(key)?.with(|state| state.size())
    }

    /// Joins the flight in the table, if there is one that can be joined.
    fn join(&self, table: &HashMap<Key, Arc<Flight>>, wish: &Wish) -> Option<Opened> {
        let flight = table.get(&wish.key)?;
        let vouched = flight.with(|state| state.vouches(wish.source.key()));
        let failed = flight.with(|state| state.failure().is_some());
        if failed && !vouched && !flight.with(|state| state.knows(wish.source.key())) {
            // It failed for others; this repository has not been asked.
            return None;
        }
        if !failed && !vouched && !wish.proven {
            return Some(Opened::NeedsProof);
        }
        if !flight.joined(wish.full) {
            return None;
        }
        if !failed {
            flight.add_source(Arc::clone(&wish.source));
        }
        self.metrics.flight.collapsed.inc();
        let handle = Handle::new(Arc::clone(flight), wish, Arc::clone(&self.metrics));
        Some(Opened::Flight { handle, led: false })
    }

    /// Keeps a failed flight in the table for a moment, so that a crowd that asks again does not become a storm.
    fn linger(self: &Arc<Self>, entry: TableEntry) {
        self.tasks.spawn_until_stop(async move {
            tokio::time::sleep(LINGER).await;
            drop(entry);
        });
    }
}

/// A flight's place in the table, given back when dropped.
struct TableEntry {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
}

impl Drop for TableEntry {
    fn drop(&mut self) {
        let mut table = self.flights.table.lock();
        // A flight that could not be joined any more may have been replaced.
        if table
            .get(&self.flight.key)
            .is_some_and(|held| Arc::ptr_eq(held, &self.flight))
        {
            table.remove(&self.flight.key);
        }
    }
}

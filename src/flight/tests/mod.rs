//! Flights as their clients see them, over a store in memory and sources that do as they are told.

mod bans;
mod claims;
mod disk;
mod gathering;
mod ranges;
mod resume;
mod retry;
mod sharing;
mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::ports::{Chunk, FetchError, Remedy, Source, StageId};
use super::state::{Plan, State};
use super::*;
use crate::flight::testing::{Failed, Fault, MemoryBlobs, Origin, OriginSource, Scripted};
use crate::oci::Digest;

const MIB: usize = 1024 * 1024;

struct World {
    blobs: Arc<MemoryBlobs>,
    flights: Arc<Flights>,
    metrics: Arc<Metrics>,
    bytes: Bytes,
    digest: Digest,
}

fn world() -> World {
    world_of(MIB)
}

fn world_of(len: usize) -> World {
    let blobs = Arc::new(MemoryBlobs::default());
    let metrics = Arc::new(Metrics::default());
    let bytes: Bytes = (0..len)
        .map(|i| u8::try_from((i * 31 + i / 4096) % 251).unwrap())
        .collect();
    let flights = Flights::new(
        Arc::clone(&blobs) as Arc<dyn Blobs>,
        Tasks::new(),
        Arc::clone(&metrics),
        Duration::from_secs(20),
        None,
    )
    .unwrap();
    World {
        blobs,
        flights,
        metrics,
        digest: Digest::sha256(&bytes),
        bytes,
    }
}

impl World {
    fn wish(&self, source: &Arc<Scripted>) -> Wish {
        Wish {
            key: self.key(),
            source: Arc::clone(source) as Arc<dyn Source>,
            proven: false,
            wanted: Wanted::Whole,
        }
    }

    /// A wish of somebody who gets the blob from `origin`.
    fn wants(&self, origin: &Arc<Origin>, wanted: Wanted) -> Wish {
        Wish {
            key: self.key(),
            source: Arc::new(OriginSource(Arc::clone(origin))),
            proven: false,
            wanted,
        }
    }

    fn origin(&self) -> Arc<Origin> {
        Origin::new("a", &self.bytes)
    }

    /// Reads all of the blob from `origin`, or from where it is.
    async fn pull(&self, origin: &Arc<Origin>) -> Result<Vec<u8>, Failure> {
        let handle = self.board(&self.wants(origin, Wanted::Whole)).await;
        match handle.head(deadline()).await {
            Ok(_) => read_all(handle.reader(None)).await,
            Err(Refusal::Failed(why)) => Err(why),
            Err(Refusal::Source(error)) => Err(Failure::Source(error)),
            Err(Refusal::TimedOut) => panic!("nothing was known in time"),
        }
    }

    async fn open(&self, wish: &Wish) -> Opened {
        self.flights.open(wish, None).await.unwrap()
    }

    async fn board(&self, wish: &Wish) -> Handle {
        match self.open(wish).await {
            Opened::Flight { handle, .. } => handle,
            other => panic!("{other:?} instead of a flight"),
        }
    }

    fn key(&self) -> Key {
        Key {
            upstream: "example.com".parse().unwrap(),
            digest: self.digest.clone(),
        }
    }

    /// What the stage of its fetches is called.
    fn stage(&self) -> StageId {
        StageId::of(&["example.com", self.digest.as_str()])
    }

    /// The bytes of `range`.
    fn part(&self, range: Range<u64>) -> &[u8] {
        let at = |position| usize::try_from(position).unwrap();
        &self.bytes[at(range.start)..at(range.end)]
    }

    /// Whether a flight is in the table.
    fn is_fetched(&self) -> bool {
        self.flights.table.find(&self.key()).is_some()
    }

    fn is_stored(&self) -> bool {
        self.blobs.blobs.lock().contains_key(&self.digest)
    }

    /// Waits until no fetch is under way.
    async fn landed(&self) {
        // Without a timer, which would run ahead of the threads that write where time is paused.
        while !self.flights.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn size(handle: &Handle) -> Option<u64> {
    match handle.head(deadline()).await.unwrap() {
        Head::Fetching(size) => size,
        Head::Stored(blob) => panic!("{blob:?} is stored"),
    }
}

async fn read_all(mut reader: Reader) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next().await {
        let Chunk::Bytes(bytes) = chunk? else {
            panic!("a stage in memory")
        };
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

//! Bodies that pass the store by: over broken connections, and from the middle of a fetch whose disk failed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::bypass::{Bypass, Supply};
use super::content::FlightContent;
use super::{BlobService, Brought, Sizes, Sources, Unkept};
use crate::flight::ports::{Blobs, Chunk, Pace, Source, StageId};
use crate::flight::testing::{Fault, MemoryBlobs, Origin, OriginSource};
use crate::flight::{Flights, Head, Key, Opened, Wanted, Wish};
use crate::oci::{Digest, range};
use crate::proxy::testing::{self, call, ubuntu};
use crate::proxy::{BlobContent, BlobReader, BlobUse, BrokenBody, BypassReason, Error, Place};
use crate::runtime::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::Call;

const MIB: usize = 1024 * 1024;
const LEN: u64 = 4 * MIB as u64;
const TIMEOUT: Duration = Duration::from_secs(20);

fn mib(count: u64) -> u64 {
    count * MIB as u64
}

fn blob() -> Bytes {
    let byte = |i: usize| u8::try_from((i * 31 + i / 4096) % 251).unwrap();
    (0..4 * MIB).map(byte).collect()
}

fn supply(origin: &Arc<Origin>, bytes: &Bytes) -> Supply {
    Supply {
        source: Arc::new(OriginSource(Arc::clone(origin))),
        digest: Digest::sha256(bytes),
        header_timeout: TIMEOUT,
    }
}

async fn rest(reader: &mut dyn BlobReader) -> (Vec<u8>, Option<BrokenBody>) {
    let mut all = Vec::new();
    while let Some(next) = reader.next().await {
        match next {
            Ok(Chunk::Bytes(bytes)) => all.extend_from_slice(&bytes),
            Ok(Chunk::File(_)) => panic!("a store in memory"),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

/// A bypass whose first answer is at hand.
async fn bypass(origin: &Arc<Origin>, bytes: &Bytes) -> Bypass {
    let source = OriginSource(Arc::clone(origin));
    let first = source.fetch(None, Pace::Client, Instant::now() + TIMEOUT);
    let first = first.await.unwrap();
    Bypass::new(supply(origin, bytes), first)
}

#[tokio::test(start_paused = true)]
async fn a_bypass_goes_on_where_a_connection_breaks() {
    let bytes = blob();
    let origin = Origin::new("a", &bytes);
    origin.cuts.store(MIB, Ordering::SeqCst);
    let mut reader = bypass(&origin, &bytes).await.reader(None);
    let (got, error) = rest(reader.as_mut()).await;
    assert!(error.is_none() && got == bytes);
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_passes_by_is_that_part_with_ranges_and_without() {
    let bytes = blob();
    for takes_ranges in [true, false] {
        let origin = Origin::new("a", &bytes);
        let content = bypass(&origin, &bytes).await;
        origin.takes_ranges.store(takes_ranges, Ordering::SeqCst);
        origin.fails(Fault::Cut(MIB));
        let mut reader = content.reader(Some(MIB as u64 / 2..mib(3) + 1));
        let (got, error) = rest(reader.as_mut()).await;
        assert!(error.is_none() && got == bytes[MIB / 2..=3 * MIB]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bypass_whose_upstream_is_gone_is_broken_off() {
    let bytes = blob();
    let origin = Origin::new("a", &bytes);
    origin.fails(Fault::Cut(MIB));
    for _ in 0..20 {
        origin.fails(Fault::Refuse("unavailable"));
    }
    let mut reader = bypass(&origin, &bytes).await.reader(None);
    let (got, error) = rest(reader.as_mut()).await;
    assert_eq!(error.unwrap().reason, "unavailable");
    assert!(got.len() < MIB);
}

#[tokio::test(start_paused = true)]
async fn a_bypass_whose_blob_changes_its_size_is_broken_off() {
    let bytes = blob();
    let origin = Origin::new("a", &bytes);
    origin.fails(Fault::Cut(MIB));
    origin.fails(Fault::Size(7));
    let mut reader = bypass(&origin, &bytes).await.reader(None);
    assert_eq!(rest(reader.as_mut()).await.1.unwrap().reason, "corrupt");
}

/// A fetch whose disk will fail, and who reads it.
struct World {
    bytes: Bytes,
    blobs: Arc<MemoryBlobs>,
    flights: Arc<Flights>,
    metrics: Arc<Metrics>,
    origin: Arc<Origin>,
}

impl World {
    fn new() -> Self {
        let bytes = blob();
        let blobs = Arc::new(MemoryBlobs::default());
        let metrics = Arc::new(Metrics::default());
        let store = Arc::clone(&blobs) as Arc<dyn Blobs>;
        let counted = Arc::clone(&metrics);
        let flights = Flights::new(store, Tasks::new(), counted, TIMEOUT, None).unwrap();
        Self {
            origin: Origin::new("a", &bytes),
            bytes,
            blobs,
            flights,
            metrics,
        }
    }

    fn key(&self) -> Key {
        Key {
            upstream: ubuntu().upstream,
            digest: Digest::sha256(&self.bytes),
        }
    }

    /// An earlier fetch left this.
    fn left(&self, range: Range<u64>) {
        let id = StageId::of(&[ubuntu().upstream.as_str(), self.key().digest.as_str()]);
        self.blobs.leave(id, &self.bytes, LEN, Some(range));
    }

    /// The blob as a client of the fetch has it, who goes on from `own` if need be. No byte arrives before the
    /// client is admitted, or the fetch might have failed by then, and the client would be none of its readers.
    async fn content(&self, wanted: Wanted, own: &Arc<Origin>) -> FlightContent {
        let wish = Wish {
            key: self.key(),
            source: Arc::new(OriginSource(Arc::clone(&self.origin))),
            proven: false,
            wanted,
        };
        self.origin.holds(0);
        let Opened::Flight { handle, .. } = self.flights.open(&wish, None).await.unwrap() else {
            panic!("no flight")
        };
        let head = handle.head(Instant::now() + TIMEOUT).await.unwrap();
        assert!(matches!(head, Head::Fetching(Some(LEN))));
        self.origin.releases();
        FlightContent {
            handle,
            supply: supply(own, &self.bytes),
            place: ubuntu(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Answers for the blob to the repository, which is proven to have it.
    async fn service(&self) -> BlobService {
        let membership = testing::World::new().membership;
        let digest = self.key().digest;
        let recorded = membership.record(&ubuntu(), &digest, None).await;
        recorded.unwrap();
        BlobService {
            flights: Arc::clone(&self.flights),
            blobs: Arc::clone(&self.blobs) as Arc<dyn Blobs>,
            membership,
            sources: Arc::new(OneSource(Arc::clone(&self.origin))),
            sizes: Sizes::default(),
            header_timeout: TIMEOUT,
            metrics: Arc::clone(&self.metrics),
        }
    }

    fn is_counted(&self, reason: &str) -> bool {
        let line = format!("layby_bypass_total{{reason=\"{reason}\"}} 1");
        self.metrics.render().contains(&line)
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_in_mid_fetch_is_not_noticed_by_a_reader_of_the_whole() {
    for room in [mib(2), mib(2) + 5, LEN - 100, LEN - 1] {
        let world = World::new();
        world.blobs.faults.room.store(room, Ordering::SeqCst);
        let own = Origin::new("a", &world.bytes);
        let content = world.content(Wanted::Whole, &own).await;
        let mut reader = content.reader(None);
        let (got, error) = rest(reader.as_mut()).await;
        assert!(error.is_none() && got == world.bytes, "{room}: {error:?}");
        assert_eq!(reader.source(), "bypass");
        assert!(world.is_counted("no_room"), "{room}");
        assert_eq!(own.twice.load(Ordering::SeqCst), 0);
        assert!(own.sent() <= LEN - room + 64 * 1024, "{room}");
    }
}

#[tokio::test]
async fn a_reader_whose_own_source_ignores_ranges_is_saved_too() {
    let world = World::new();
    world.blobs.faults.room.store(mib(2), Ordering::SeqCst);
    let own = Origin::new("a", &world.bytes);
    own.takes_ranges.store(false, Ordering::SeqCst);
    let content = world.content(Wanted::Whole, &own).await;
    let (got, error) = rest(content.reader(None).as_mut()).await;
    assert!(error.is_none() && got == world.bytes);
}

#[tokio::test]
async fn a_saved_reader_never_gets_a_whole_that_does_not_match() {
    let world = World::new();
    world.blobs.faults.room.store(mib(2), Ordering::SeqCst);
    let mut wrong = world.bytes.to_vec();
    wrong[3 * MIB] ^= 1;
    let own = Origin::new("a", &wrong.into());
    let content = world.content(Wanted::Whole, &own).await;
    let (got, error) = rest(content.reader(None).as_mut()).await;
    assert_eq!(error.unwrap().reason, "corrupt");
    assert!(got.len() <= 4 * MIB - 64 * 1024);
}

#[tokio::test]
async fn a_reader_that_cannot_be_saved_is_broken_off() {
    let world = World::new();
    world.blobs.faults.room.store(mib(2), Ordering::SeqCst);
    let own = Origin::new("a", &world.bytes);
    own.fails(Fault::Refuse("not_found"));
    let content = world.content(Wanted::Whole, &own).await;
    let (_, error) = rest(content.reader(None).as_mut()).await;
    assert_eq!(error.unwrap().reason, "not_found");
}

#[tokio::test]
async fn a_reader_that_is_ahead_of_the_hash_when_the_disk_cannot_be_read_is_saved() {
    let world = World::new();
    world.left(mib(1)..mib(2));
    world.blobs.faults.unreadable.store(true, Ordering::SeqCst);
    let own = Origin::new("a", &world.bytes);
    let content = world.content(Wanted::Whole, &own).await;
    let (got, error) = rest(content.reader(None).as_mut()).await;
    assert!(error.is_none() && got == world.bytes);
    assert!(world.is_counted("disk_failed"));
}

#[tokio::test]
async fn a_reader_of_a_part_takes_what_was_written_and_asks_for_the_gaps() {
    let world = World::new();
    world.left(mib(2)..mib(3));
    world.blobs.faults.room.store(mib(1), Ordering::SeqCst);
    let own = Origin::new("a", &world.bytes);
    let content = world.content(Wanted::PartsFrom(0..LEN - 1), &own).await;
    let mut reader = content.reader(Some(0..LEN - 1));
    let (got, error) = rest(reader.as_mut()).await;
    assert!(error.is_none() && got == world.bytes[..4 * MIB - 1]);
    assert_eq!(own.asked(), [Some(mib(1)..mib(2)), Some(mib(3)..LEN - 1)]);
}

#[tokio::test]
async fn a_part_that_a_saved_reader_cannot_get_from_its_own_source_is_broken_off_and_asked_for_once()
 {
    let world = World::new();
    world.blobs.faults.room.store(mib(1), Ordering::SeqCst);
    // Its blob ends where the part that is lacking begins.
    let own = Origin::new("a", &world.bytes.slice(..MIB));
    own.takes_ranges.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        own.fails(Fault::Size(mib(1)));
    }
    own.fails(Fault::Refuse("invalid"));
    let content = world.content(Wanted::PartsFrom(0..LEN - 1), &own).await;
    let (got, error) = rest(content.reader(Some(0..LEN - 1)).as_mut()).await;
    assert_eq!(error.unwrap().reason, "corrupt");
    assert!(got == world.bytes[..MIB]);
    assert_eq!(own.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_is_asked_for_at_the_pace_of_its_client() {
    let world = World::new();
    let service = world.service().await;
    world.blobs.full.store(true, Ordering::SeqCst);
    world.origin.fails(Fault::Cut(MIB));
    let (place, digest) = (ubuntu(), world.key().digest);
    let answer = service.blob(&place, &digest, BlobUse::Full, &call()).await;
    let mut reader = answer.unwrap().reader(None).unwrap();
    let (got, error) = rest(reader.as_mut()).await;
    assert!(error.is_none() && got == world.bytes);
    // The fetch had asked for the first answer, to store it.
    assert_eq!(*world.origin.paces.lock(), [Pace::Stored, Pace::Client]);
    assert_eq!(world.origin.slowed.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_go_on_at_the_pace_of_its_client_is_dropped_and_asked_for_anew() {
    let world = World::new();
    let service = world.service().await;
    world.blobs.full.store(true, Ordering::SeqCst);
    world.origin.slows_down.store(false, Ordering::SeqCst);
    let (place, digest) = (ubuntu(), world.key().digest);
    let answer = service.blob(&place, &digest, BlobUse::Full, &call()).await;
    let mut reader = answer.unwrap().reader(None).unwrap();
    let (got, error) = rest(reader.as_mut()).await;
    assert!(error.is_none() && got == world.bytes);
    assert_eq!(*world.origin.paces.lock(), [Pace::Stored, Pace::Client]);
    assert_eq!(world.origin.most_open.load(Ordering::SeqCst), 1);
}

/// Everybody gets everything from here.
#[derive(Debug)]
struct OneSource(Arc<Origin>);

impl Sources for OneSource {
    fn source(&self, _: &Place, _: &Digest, _: &Call) -> Result<Arc<dyn Source>, Error> {
        Ok(Arc::new(OriginSource(Arc::clone(&self.0))))
    }
}

#[tokio::test]
async fn a_size_that_the_upstream_contradicts_is_forgotten() {
    for (why, is_believed) in [("unavailable", true), ("invalid", false)] {
        let world = World::new();
        let service = world.service().await;
        let key = world.key();
        service.sizes.0.insert(key.clone(), 2 * LEN);
        for _ in 0..3 {
            world.origin.fails(Fault::Refuse(why));
        }
        let part = BlobUse::Ranged(range::parse(Some(b"bytes=-100")));
        let answer = service.blob(&ubuntu(), &key.digest, part, &call()).await;
        assert!(answer.is_err());
        let asked = world.origin.asked();
        assert_eq!(asked.last(), Some(&Some(2 * LEN - 100..2 * LEN)));
        assert_eq!(service.sizes.0.contains_key(&key), is_believed, "{why}");
    }
}

#[tokio::test]
async fn a_repository_with_a_proof_on_disk_has_what_another_brings_though_its_own_upstream_refuses()
{
    let world = World::new();
    let service = world.service().await;
    let digest = world.key().digest;
    service.membership.forget(&ubuntu(), &digest);
    for _ in 0..3 {
        world.origin.fails(Fault::Refuse("invalid"));
    }
    let (place, call) = (ubuntu(), call());
    let leading = service.blob(&place, &digest, BlobUse::Full, &call);
    let mut leading = std::pin::pin!(leading);
    assert!(futures_util::poll!(&mut leading).is_pending());
    // Before the leader's upstream is asked, another joins.
    let other = Wish {
        key: world.key(),
        source: Arc::new(OriginSource(Origin::new("b", &world.bytes))),
        proven: true,
        wanted: Wanted::Whole,
    };
    let opened = world.flights.open(&other, None).await.unwrap();
    let Opened::Flight { handle, led: false } = opened else {
        panic!("no flight to join: {opened:?}")
    };
    let answer = leading.await.unwrap();
    assert_eq!(answer.len, Some(LEN));
    assert_eq!(world.origin.asked().len(), 1);
    drop(handle);
}

#[tokio::test]
async fn what_is_brought_is_there_once_it_is_committed_and_not_before() {
    let world = World::new();
    world.blobs.commits.forget_permits(1000);
    let (service, landed) = (Arc::new(world.service().await), Arc::new(AtomicU64::new(0)));
    let (bringer, told, digest) = (
        Arc::clone(&service),
        Arc::clone(&landed),
        world.key().digest,
    );
    let bringing = testing::client(async move {
        let tell = |bytes| told.store(bytes, Ordering::SeqCst);
        bringer.bring(&ubuntu(), &digest, &call(), tell).await
    });
    while landed.load(Ordering::SeqCst) < LEN {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    testing::turns().await;
    assert!(!bringing.is_finished(), "all bytes are there, and no blob");
    world.blobs.commits.add_permits(1);
    assert_eq!(bringing.await.unwrap().unwrap(), Brought::Fetched);
    let digest = world.key().digest;
    assert!(world.blobs.blobs.lock().contains_key(&digest));
    let again = service.bring(&ubuntu(), &digest, &call(), |_| {}).await;
    assert_eq!(again.unwrap(), Brought::Here);
    assert_eq!(world.origin.asked().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_committed_or_has_no_room_is_not_brought() {
    let world = World::new();
    world.blobs.commits.close();
    let (service, digest) = (world.service().await, world.key().digest);
    let failed = service.bring(&ubuntu(), &digest, &call(), |_| {}).await;
    assert!(matches!(
        failed,
        Err(Unkept::Uncached(BypassReason::DiskFailed))
    ));
    let world = World::new();
    world.blobs.full.store(true, Ordering::SeqCst);
    let (service, digest) = (world.service().await, world.key().digest);
    let failed = service.bring(&ubuntu(), &digest, &call(), |_| {}).await;
    assert!(matches!(
        failed,
        Err(Unkept::Uncached(BypassReason::NoRoom))
    ));
    assert_eq!(
        *world.origin.paces.lock(),
        [Pace::Stored],
        "nobody reads it past the store"
    );
}

//! Making room for what is new.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::oci::DigestSet;
use crate::store::evict::{Pace, Want};
use crate::store::testing::Sick;

const KIB: u64 = 1 << 10;

/// A store that evicts, of at most `max_size` bytes.
async fn evicting(max_size: u64) -> Fixture {
    let fixture = Fixture::with_max_size(Some(max_size)).await;
    fixture.store.set_pinned(DigestSet::default());
    fixture.store.usage.ready_to_choose().await;
    fixture
}

impl Fixture {
    /// Commits a blob of `len` bytes that `number` tells from others, a second after the last.
    async fn blob(&self, number: u8, len: u64) -> Digest {
        self.clock.advance(Duration::from_secs(1));
        let mut bytes = content(0..len);
        bytes[0] = number;
        self.commit(&bytes).await.unwrap()
    }

    fn is_there(&self, digest: &Digest) -> bool {
        self.path(digest).try_exists().unwrap()
    }

    /// How many of them are there.
    fn count_of(&self, digests: &[Digest]) -> usize {
        let there = digests.iter().filter(|digest| self.is_there(digest));
        there.count()
    }

    fn evicted(&self, reason: &str) -> bool {
        let text = self.metrics.render();
        text.contains(&format!("evictions_total{{reason=\"{reason}\"}}"))
    }
}

#[tokio::test]
async fn a_fetch_that_needs_room_pushes_out_what_was_used_longest_ago() {
    let fixture = evicting(100 * KIB).await;
    let mut blobs = Vec::new();
    for n in 0..9 {
        blobs.push(fixture.blob(n, 10 * KIB).await);
    }
    drop(fixture.store.open_blob(&blobs[0]).unwrap());
    let stage = fixture.stage(Some(20 * KIB)).await.unwrap();
    assert!(!fixture.is_there(&blobs[1]));
    assert!(fixture.is_there(&blobs[0]) && fixture.is_there(&blobs[8]));
    assert!(fixture.evicted("room"));
    drop(stage);
}

#[tokio::test]
async fn what_is_held_is_passed_over() {
    let fixture = evicting(100 * KIB).await;
    let mut blobs = Vec::new();
    for n in 0..9 {
        blobs.push(fixture.blob(n, 10 * KIB).await);
    }
    let hold = fixture.store.hold_blob(&blobs[0]);
    let stage = fixture.stage(Some(20 * KIB)).await.unwrap();
    assert!(fixture.is_there(&blobs[0]) && !fixture.is_there(&blobs[1]));
    stage.discard();
    drop(hold);
}

#[tokio::test]
async fn what_is_short_of_room_is_told_when_all_is_gone_that_may_go() {
    let fixture = evicting(100 * KIB).await;
    for n in 0..9 {
        fixture.blob(n, 10 * KIB).await;
    }
    let missing = |more| fixture.store.missing_room(more).unwrap();
    assert_eq!(missing(10 * KIB), 0);
    // Of 90 KiB, 75 stay.
    assert_eq!(missing(25 * KIB), 0);
    assert_eq!(missing(26 * KIB), KIB);
    assert_eq!(missing(200 * KIB), 175 * KIB);
}

#[tokio::test]
async fn many_large_requests_that_leave_at_once_do_not_empty_the_cache() {
    let fixture = evicting(100 * KIB).await;
    let mut blobs = Vec::new();
    for n in 0..10 {
        blobs.push(fixture.blob(n, 9 * KIB).await);
    }
    let mut refused = 0;
    for _ in 0..50 {
        match fixture.stage(Some(20 * KIB)).await {
            Ok(stage) => stage.discard(),
            Err(_) => refused += 1,
        }
    }
    assert!(refused < 50, "the first had room");
    // A quarter, and the rest of the last blob that went.
    assert!(fixture.count_of(&blobs) * 9 >= 75 - 9);
    // More than a quarter is not pushed out for anybody.
    let all = fixture.store.totals().blobs;
    assert!(fixture.stage(Some(60 * KIB)).await.is_err());
    assert_eq!(fixture.store.totals().blobs, all);
}

#[tokio::test]
async fn blobs_go_before_there_is_no_room() {
    let fixture = evicting(1000 * KIB).await;
    let mut blobs = Vec::new();
    for n in 0..96 {
        blobs.push(fixture.blob(n, 10 * KIB).await);
    }
    while !fixture.evicted("size") {
        tokio::task::yield_now().await;
    }
    assert!(!fixture.is_there(&blobs[0]) && fixture.is_there(&blobs[95]));
    assert!(fixture.store.totals().bytes <= 950 * KIB);
}

#[tokio::test]
async fn nothing_is_evicted_before_the_pins_are_known_nor_where_that_is_not_wanted() {
    let fixture = Fixture::with_max_size(Some(100 * KIB)).await;
    fixture.store.scanned().await;
    let mut blobs = Vec::new();
    for n in 0..10 {
        blobs.push(fixture.blob(n, 10 * KIB).await);
    }
    assert!(fixture.stage(Some(KIB)).await.is_err());
    assert_eq!(fixture.count_of(&blobs), 10);
    let mut pins = DigestSet::default();
    blobs[..9].iter().for_each(|digest| _ = pins.insert(digest));
    fixture.store.set_pinned(pins);
    fixture.store.usage.ready_to_choose().await;
    assert!(fixture.stage(Some(20 * KIB)).await.is_err());
    let stage = fixture.stage(Some(KIB)).await.unwrap();
    assert_eq!(fixture.count_of(&blobs), 9);
    assert!(!fixture.is_there(&blobs[9]));
    drop(stage);
}

#[tokio::test]
async fn what_is_read_stays_and_what_is_open_without_a_name_counts() {
    let fixture = evicting(100 * KIB).await;
    let read = fixture.blob(1, 50 * KIB).await;
    let idle = fixture.blob(2, 20 * KIB).await;
    let reader = fixture.store.open_blob(&read).unwrap().unwrap();
    let collected = fixture.store.collect(Some(0), false).await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, 20 * KIB));
    assert!(fixture.is_there(&read) && !fixture.is_there(&idle));
    // An operator removes it under its reader.
    assert!(fixture.store.remove_blob(&read).await.unwrap());
    assert_eq!(fixture.store.totals().bytes, 0);
    assert!(fixture.stage(Some(51 * KIB)).await.is_err());
    let mut bytes = vec![0; 50 << 10];
    reader.file.read_exact_at(&mut bytes, 0).unwrap();
    drop(reader);
    drop(fixture.stage(Some(51 * KIB)).await.unwrap());
}

#[tokio::test]
async fn a_blob_that_is_used_once_it_is_chosen_stays() {
    let fixture = evicting(100 * KIB).await;
    let digest = fixture.blob(1, 10 * KIB).await;
    let usage = &fixture.store.usage;
    let demand = usage::Demand::Bytes(1);
    let victims = usage.choose(demand, 1, fixture.clock.now());
    drop(fixture.store.open_blob(&digest).unwrap());
    assert!(!usage.is_chosen(&victims[0]));
}

#[tokio::test]
async fn what_was_chosen_by_somebody_who_went_away_can_still_go() {
    let fixture = evicting(100 * KIB).await;
    for n in 0..70 {
        fixture.blob(n, KIB).await;
    }
    let call = Box::pin(fixture.store.collect(Some(0), false));
    assert!(futures_util::FutureExt::now_or_never(call).is_none());
    // Made after what the caller has left behind.
    let last = fixture.blob(70, KIB).await;
    let left = fixture.store.totals().blobs;
    assert_eq!(left, 71 - 64, "one batch was under way");
    let collected = fixture.store.collect(Some(0), false).await.unwrap();
    assert_eq!((collected.blobs, fixture.is_there(&last)), (left, false));
}

#[tokio::test]
async fn what_could_not_go_can_be_chosen_again() {
    let mut fixture = evicting(100 * KIB).await;
    fixture.blob(1, KIB).await;
    fixture.stop().await;
    assert!(fixture.store.collect(Some(0), false).await.is_err());
    let demand = usage::Demand::Bytes(1);
    let victims = fixture.store.usage.choose(demand, 1, fixture.clock.now());
    assert_eq!(victims.len(), 1);
}

#[tokio::test]
async fn what_nobody_used_for_its_age_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
    let options = StoreOptions {
        max_age: Some(Duration::from_hours(24)),
        ..options_in(dir.path(), None)
    };
    let store = open_with(options, &clock, &metrics, &tasks).await.unwrap();
    store.set_pinned(DigestSet::default());
    store.usage.ready_to_choose().await;
    let fixture = Fixture {
        dir,
        clock,
        metrics,
        tasks,
        store,
    };
    let old = fixture.blob(1, KIB).await;
    let used = fixture.blob(2, KIB).await;
    fixture.clock.advance(Duration::from_hours(20));
    fixture.store.note_use(&used);
    fixture.clock.advance(Duration::from_hours(10));
    let would = fixture.store.collect(None, true).await.unwrap();
    assert_eq!((would.blobs, fixture.is_there(&old)), (1, true));
    let collected = fixture.store.collect(None, false).await.unwrap();
    assert_eq!(collected, would);
    assert!(!fixture.is_there(&old) && fixture.is_there(&used));
}

#[tokio::test]
async fn manifests_and_the_order_of_use_are_known_after_a_restart() {
    let fixture = Fixture::new().await;
    let manifest = fixture.blob(1, KIB).await;
    let again = fixture.blob(2, KIB).await;
    let newcomers = [fixture.blob(3, KIB).await, fixture.blob(4, KIB).await];
    let record = key("org/app", RefKind::Manifest(manifest.clone()));
    fixture
        .store
        .put_ref(&record, b"{}".to_vec())
        .await
        .unwrap();
    fixture.clock.advance(Duration::from_mins(5));
    drop(fixture.store.open_blob(&again).unwrap());
    let fixture = fixture.restart().await;
    fixture.store.set_pinned(DigestSet::default());
    let left = |kib| fixture.store.collect(Some(kib * KIB), false);
    assert_eq!(left(2).await.unwrap().blobs, 2);
    assert_eq!(fixture.count_of(&newcomers), 0);
    assert_eq!(left(1).await.unwrap().blobs, 1);
    assert!(fixture.is_there(&manifest) && !fixture.is_there(&again));
}

#[tokio::test]
async fn what_the_last_life_left_counts_before_it_is_counted() {
    let fixture = Fixture::new().await;
    fixture.blob(1, 50 * KIB).await;
    let note = fixture.store.layout.note(Note::Totals);
    assert!(!note.try_exists().unwrap());
    let mut fixture = fixture.restart().await;
    fixture.stop().await;
    let kept = fs::read_to_string(&note).unwrap();
    assert_eq!(kept, format!("{{\"bytes\":{}}}", 50 * KIB));
    let usage = Usage::new(Arc::default(), Some(50 * KIB));
    assert_eq!(usage.taken(), Some(50 * KIB));
    let fixture = fixture.restart_with(Some(60 * KIB)).await;
    assert!(!note.try_exists().unwrap(), "it holds for one life");
    // Whether it is counted by now or not.
    assert!(fixture.stage(Some(11 * KIB)).await.is_err());
    assert!(fixture.stage(Some(10 * KIB)).await.is_ok());
}

#[tokio::test]
async fn after_a_crash_a_fetch_waits_until_it_is_known_what_there_is() {
    let fixture = Fixture::new().await;
    fixture.blob(1, 50 * KIB).await;
    let mut fixture = fixture.restart().await;
    fixture.stop().await;
    fs::remove_file(fixture.store.layout.note(Note::Totals)).unwrap();
    let fixture = fixture.restart_with(Some(60 * KIB)).await;
    assert!(fixture.stage(Some(10 * KIB)).await.is_ok());
    assert!(fixture.stage(Some(11 * KIB)).await.is_err());
}

/// Forty blobs of 2 KiB on a disk that says from then on that no more is free than must be, whatever goes.
async fn on_a_disk_that_frees_nothing() -> (Fixture, Vec<Digest>) {
    let dir = tempfile::tempdir().unwrap();
    let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
    let options = StoreOptions {
        min_free: MinFree::Bytes(50 * KIB),
        evicts: false,
        ..options_in(dir.path(), None)
    };
    let files = Sick::new();
    let has = |available| {
        let total = 1 << 30;
        files.always_has(Space { total, available });
    };
    has(1 << 29);
    let disk = Arc::clone(&files);
    let store = open_on(disk, options, &clock, &metrics, &tasks).await;
    let fixture = Fixture {
        dir,
        clock,
        metrics,
        tasks,
        store: store.unwrap(),
    };
    fixture.store.set_pinned(DigestSet::default());
    fixture.store.usage.ready_to_choose().await;
    let mut blobs = Vec::new();
    for n in 0..40 {
        blobs.push(fixture.blob(n, 2 * KIB).await);
    }
    has(50 * KIB);
    (fixture, blobs)
}

#[tokio::test]
async fn where_what_goes_frees_no_space_little_goes_and_ever_less_often() {
    let (fixture, blobs) = on_a_disk_that_frees_nothing().await;
    let (mut pace, stopping) = (Pace::default(), CancellationToken::new());
    let (_asks, mut asked) = Asks::new();
    tokio::time::pause();
    let mut left = Vec::new();
    for _ in 0..2 {
        let evictor = &fixture.store.evictor;
        evictor.relieve(&mut pace, &mut asked, &stopping).await;
        left.push(fixture.count_of(&blobs));
    }
    for _ in 0..7 {
        tokio::time::advance(Duration::from_secs(10)).await;
        let evictor = &fixture.store.evictor;
        evictor.relieve(&mut pace, &mut asked, &stopping).await;
        left.push(fixture.count_of(&blobs));
    }
    assert_eq!(left, [36, 36, 32, 32, 28, 28, 28, 28, 25]);
}

#[tokio::test]
async fn a_fetch_that_tries_again_does_not_have_the_same_go_twice() {
    let (fixture, blobs) = on_a_disk_that_frees_nothing().await;
    let evictor = &fixture.store.evictor;
    let mut want = Want {
        needed: 5 * KIB,
        is_disk_full: false,
        promised: 0,
    };
    want.promised = evictor.make_room(want).await.unwrap().unwrap();
    assert_eq!(fixture.count_of(&blobs), 37);
    for is_disk_full in [false, true] {
        want.is_disk_full = is_disk_full;
        assert_eq!(evictor.make_room(want).await.unwrap(), None);
    }
    assert_eq!(fixture.count_of(&blobs), 37);
}

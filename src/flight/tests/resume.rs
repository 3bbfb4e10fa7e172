//! What an earlier fetch left is gone on from, and an ended one leaves what it has.

use super::*;

const LEN: u64 = 8 * MIB as u64;

fn mib(count: u64) -> u64 {
    count * MIB as u64
}

#[tokio::test]
async fn what_an_earlier_fetch_left_is_not_asked_for_again() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    let ranges = [0..mib(4), mib(6)..mib(7)];
    world.blobs.leave(world.stage(), &world.bytes, LEN, ranges);
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked(), [Some(mib(4)..mib(6)), Some(mib(7)..mib(8))]);
    world.landed().await;
    assert!(world.is_stored());
}

#[tokio::test]
async fn a_blob_that_was_left_complete_is_committed_without_a_question() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    let all = Some(0..LEN);
    world.blobs.leave(world.stage(), &world.bytes, LEN, all);
    let held = world.blobs.commits.acquire_many(1000).await.unwrap();
    let wish = world.wants(&origin, Wanted::Whole);
    let handle = world.board(&wish).await;
    // Nobody was asked, so whoever has no proof gets nothing, and is told so before the blob is committed.
    let refusal = handle.head(deadline()).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Failed(Failure::Aborted)));
    assert!(matches!(world.open(&wish).await, Opened::NeedsProof));
    let proven = Wish {
        proven: true,
        ..wish
    };
    let handle = world.board(&proven).await;
    assert_eq!(size(&handle).await, Some(LEN));
    assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
    drop(held);
    world.landed().await;
    assert!(world.is_stored() && origin.asked().is_empty());
}

#[tokio::test]
async fn what_was_left_of_another_size_is_thrown_away() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    let some = Some(0..mib(4));
    world
        .blobs
        .leave(world.stage(), &vec![7; 4 * MIB], LEN + 1, some);
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked().last(), Some(&None));
}

#[tokio::test]
async fn wrong_bytes_that_were_left_are_thrown_away_and_the_next_request_starts_anew() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    let some = Some(0..mib(4));
    world
        .blobs
        .leave(world.stage(), &vec![7; 4 * MIB], LEN, some);
    let failure = world.pull(&origin).await.unwrap_err();
    assert!(matches!(failure, Failure::Corrupt(_)), "{failure}");
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked().last(), Some(&None));
}

#[tokio::test]
async fn wrong_bytes_that_were_left_complete_are_thrown_away_and_nobody_hears_of_them() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    let all = Some(0..LEN);
    world
        .blobs
        .leave(world.stage(), &vec![7; 8 * MIB], LEN, all);
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked(), [None]);
    let failures = world.metrics.render();
    let failures = failures
        .lines()
        .find(|line| line.starts_with("layby_verify_failures_total{"));
    assert!(
        failures.is_none_or(|line| line.ends_with(" 0")),
        "{failures:?}"
    );
}

#[tokio::test]
async fn an_abandoned_fetch_is_gone_on_from_by_its_successor() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    origin.holds(16);
    let wish = world.wants(&origin, Wanted::PartsFrom(0..LEN - 1));
    let handle = world.board(&wish).await;
    size(&handle).await;
    let mut reader = handle.reader(Some(0..LEN - 1));
    let mut got = 0;
    while got < mib(1) {
        got += reader.next().await.unwrap().unwrap().len();
    }
    drop(reader);
    drop(handle);
    // It comes before the abandoned one has ended.
    let successor = world.board(&world.wants(&origin, Wanted::Whole)).await;
    size(&successor).await;
    origin.releases();
    assert!(read_all(successor.reader(None)).await.unwrap() == world.bytes);
    assert_eq!(origin.asked().len(), 2);
    assert_eq!(origin.asked()[1], Some(mib(1)..LEN));
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_stop_leaves_what_has_come() {
    let world = world_of(8 * MIB);
    let origin = world.origin();
    origin.holds(16);
    let handle = world.board(&world.wants(&origin, Wanted::Whole)).await;
    size(&handle).await;
    let mut reader = handle.reader(None);
    let mut got = 0;
    while got < mib(1) {
        got += reader.next().await.unwrap().unwrap().len();
    }
    world.flights.tasks.stop();
    assert!(matches!(reader.next().await, Some(Err(Failure::Aborted))));
    world.landed().await;
    assert_eq!(world.blobs.left(&world.stage()).await, mib(1));
}

#[tokio::test]
async fn a_panic_leaves_what_has_come() {
    let world = world_of(8 * MIB);
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(LEN));
    source.panics();
    sending.send(Ok(world.bytes.slice(..MIB))).await.unwrap();
    let handle = world.board(&world.wish(&source)).await;
    let mut reader = handle.reader(None);
    let mut got = 0;
    while got < mib(1) {
        got += reader.next().await.unwrap().unwrap().len();
    }
    let broke: FetchError = Arc::new(Failed("unavailable"));
    sending.send(Err(broke)).await.unwrap();
    assert!(matches!(reader.next().await, Some(Err(Failure::Aborted))));
    assert_eq!(world.blobs.left(&world.stage()).await, mib(1));
}

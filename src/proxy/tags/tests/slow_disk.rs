//! A disk that is slow makes no answer old.

use tokio::time::{Instant, advance, timeout};

use super::*;

/// An instance with an old tag, whose upstream has moved it to `b`.
async fn about_to_move() -> (World, Digest) {
    let world = old().await;
    let new = world.registry.push(&ubuntu(), "latest", &image("b"));
    (world, new)
}

/// A client of the tag.
fn asks(world: &World) -> tokio::task::JoinHandle<Result<ManifestAnswer, Error>> {
    let tags = Arc::clone(&world.tags);
    client(async move { tags.manifest(&ubuntu(), &latest(), &call()).await })
}

/// What a client of the tag's new manifest gets, by digest.
async fn by_its_digest(world: &World, digest: &Digest) -> CacheOutcome {
    let answer = world
        .manifests
        .by_digest(&ubuntu(), digest, &call())
        .await
        .unwrap();
    assert_eq!(answer.digest, *digest);
    answer.outcome
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_the_disk_is_searched_for_the_new_manifest_is_not_the_upstreams() {
    let (world, new) = about_to_move().await;
    world.records.hold_reads();
    let asking = asks(&world);
    turns().await;
    advance(4 * SECOND).await;
    turns().await;
    assert!(!asking.is_finished());
    world.records.release_reads();
    let answer = asking.await.unwrap().unwrap();
    assert_eq!((answer.digest, answer.outcome), (new, CacheOutcome::Miss));
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("b"))]);
}

#[tokio::test(start_paused = true)]
async fn after_a_long_search_the_upstream_has_what_was_left_of_its_time() {
    let (world, _) = about_to_move().await;
    world.records.hold_reads();
    world.registry.hold();
    let (asking, began) = (asks(&world), Instant::now());
    turns().await;
    advance(2 * SECOND).await;
    world.registry.release();
    turns().await;
    world.registry.hold_only("GET");
    advance(4 * SECOND).await;
    world.records.release_reads();
    let answer = asking.await.unwrap().unwrap();
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    assert_eq!(answer.outcome, stale);
    assert_eq!(began.elapsed(), 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_gets_an_old_answer_out_in_time_and_is_named_as_the_slow_one() {
    let (world, _) = about_to_move().await;
    world.records.hold_reads();
    let began = Instant::now();
    let answer = pull(&world).await.unwrap();
    assert_eq!(began.elapsed(), 8 * SECOND);
    assert_eq!(answer.digest, digest(&image("a")));
    let stale = CacheOutcome::Stale(StaleReason::SlowDisk);
    assert_eq!(answer.outcome, stale);
    assert_eq!(answer.warning.unwrap(), "served stale: slow_disk");
    // The next ones do not wait for it.
    assert_eq!(pulled(&world).await.1, stale);
    assert_eq!(began.elapsed(), 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_say_which_image_is_whole_holds_up_no_old_answer() {
    let (world, new) = about_to_move().await;
    world.store_blobs_of(&ubuntu(), "a");
    pull(&world).await.unwrap();
    world.settled().await;
    world.clock.advance(MINUTE);
    world.registry.fail_all(&unavailable());
    world.records.hold_reads_of("proof");
    let began = Instant::now();
    let stale = CacheOutcome::Stale(StaleReason::Unreachable);
    let answer = timeout(MINUTE, pulled(&world)).await.unwrap();
    assert_eq!(answer, (new, stale));
    assert_eq!(began.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_in_time_is_served_before_it_is_known_what_of_it_is_here() {
    let (world, new) = about_to_move().await;
    world.records.hold_reads_of("proof");
    let began = Instant::now();
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(by_its_digest(&world, &new).await, CacheOutcome::Hit);
    // Asked about again, since the tag has not moved yet; no manifest is fetched twice.
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
    assert_eq!(world.registry.asked(), [HEAD, &get(&image("b")), HEAD]);
    world.records.release_reads();
    world.settled().await;
    assert_eq!(record(&world).unwrap().digest, new);
    assert_eq!(pulled(&world).await, (new, CacheOutcome::Hit));
}

#[tokio::test(start_paused = true)]
async fn however_often_a_tag_is_asked_for_one_late_answer_is_waited_for() {
    let (world, _) = about_to_move().await;
    for name in ["b", "c"] {
        let new = world.registry.push(&ubuntu(), "latest", &image(name));
        world.records.hold_reads_of("proof");
        for _ in 0..5 {
            assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
            turns().await;
            assert_eq!(world.ctx.tasks.len(), 1);
        }
        world.records.release_reads();
        world.settled().await;
        assert_eq!(record(&world).unwrap().digest, new);
        world.clock.advance(MINUTE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_was_confirmed_in_time_is_not_old() {
    let (world, new) = about_to_move().await;
    pull(&world).await.unwrap();
    world.clock.advance(MINUTE);
    world.records.hold_reads_of("proof");
    let answer = timeout(MINUTE, pulled(&world)).await.unwrap();
    assert_eq!(answer, (new, CacheOutcome::Revalidated));
}

#[tokio::test(start_paused = true)]
async fn commits_that_never_end_hold_up_no_tag_and_hide_no_manifest() {
    let (world, new) = about_to_move().await;
    world.records.hold();
    let began = Instant::now();
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Hit));
    assert_eq!(by_its_digest(&world, &new).await, CacheOutcome::Hit);
    assert_eq!(began.elapsed(), Duration::ZERO);
    world.records.release();
    world.settled().await;
    assert_eq!(record(&world).unwrap().digest, new);
}

/// The writes of as many other manifests wait for the disk as may wait.
#[tokio::test(start_paused = true)]
async fn writes_that_wait_for_the_disk_make_no_answer_old() {
    let (world, new) = about_to_move().await;
    world.records.hold();
    for number in 0..256 {
        let other = world
            .registry
            .push_untagged(&ubuntu(), &image(&format!("other {number}")));
        by_its_digest(&world, &other).await;
    }
    let began = Instant::now();
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(by_its_digest(&world, &new).await, CacheOutcome::Hit);
}

#[tokio::test]
async fn a_full_disk_stops_no_tag() {
    let (world, new) = about_to_move().await;
    world.records.is_full.store(true, Ordering::Relaxed);
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Miss));
    world.settled().await;
    assert_eq!(pulled(&world).await, (new.clone(), CacheOutcome::Hit));
    assert_eq!(by_its_digest(&world, &new).await, CacheOutcome::Hit);
    assert_eq!(record(&world).unwrap().digest, digest(&image("a")));
}

//! A disk without room, or one that fails.

use super::*;

#[tokio::test]
async fn a_blob_without_room_is_left_to_each_client_and_its_answer_to_the_first() {
    let world = world();
    world.blobs.full.store(true, Ordering::SeqCst);
    let source = Scripted::new("a");
    source.sends_all(&world.bytes);
    let handle = world.board(&world.wish(&source)).await;
    let Err(Refusal::Failed(Failure::Bypass(Uncached::NoRoom, answer))) =
        handle.head(deadline()).await
    else {
        panic!("no bypass")
    };
    assert!(answer.lock().take().is_some());
}

#[tokio::test]
async fn a_disk_that_fails_leaves_its_readers_what_they_need_to_go_on_and_commits_nothing() {
    let world = world();
    let source = Scripted::new("a");
    world.blobs.faults.room.store(0, Ordering::SeqCst);
    source.sends_all(&world.bytes);
    let handle = world.board(&world.wish(&source)).await;
    let failure = read_all(handle.reader(None)).await.unwrap_err();
    assert!(matches!(failure, Failure::Wrecked(_)), "{failure}");
    world.landed().await;
    assert!(!world.is_stored());
}

fn wrecked(failure: Failure) -> Arc<Wreck> {
    match failure {
        Failure::Wrecked(wreck) => wreck,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_full_disk_leaves_the_hash_of_all_that_was_written() {
    let world = world_of(4 * MIB);
    let origin = world.origin();
    let room = 2 * MIB as u64;
    world.blobs.faults.room.store(room, Ordering::SeqCst);
    let wreck = wrecked(world.pull(&origin).await.unwrap_err());
    let (mut hasher, hashed) = wreck.hash();
    assert_eq!((hashed, wreck.size()), (room, Some(4 * MIB as u64)));
    hasher.update(world.part(room..4 * MIB as u64));
    assert_eq!(hasher.finish(), world.digest);
    // Whoever comes next starts anew, and finds what is there.
    world.blobs.faults.room.store(u64::MAX, Ordering::SeqCst);
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked().last(), Some(&Some(room..4 * MIB as u64)));
}

#[tokio::test]
async fn what_came_out_of_order_is_hashed_before_the_readers_hear_of_the_failure() {
    let world = world_of(4 * MIB);
    let origin = world.origin();
    let mib = |count: u64| count * MIB as u64;
    let island = Some(mib(1)..mib(2));
    world
        .blobs
        .leave(world.stage(), &world.bytes, mib(4), island);
    world.blobs.faults.room.store(mib(3), Ordering::SeqCst);
    let wreck = wrecked(world.pull(&origin).await.unwrap_err());
    assert_eq!(wreck.hash().1, mib(3));
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_back_leaves_the_hash_of_what_could() {
    let world = world_of(4 * MIB);
    let origin = world.origin();
    let mib = |count: u64| count * MIB as u64;
    let island = Some(mib(1)..mib(2));
    world
        .blobs
        .leave(world.stage(), &world.bytes, mib(4), island);
    world.blobs.faults.unreadable.store(true, Ordering::SeqCst);
    let wreck = wrecked(world.pull(&origin).await.unwrap_err());
    assert_eq!(wreck.hash().1, mib(1));
    // Of such a disk nothing is believed.
    world.landed().await;
    assert_eq!(world.blobs.left(&world.stage()).await, 0);
}

#[tokio::test]
async fn a_commit_that_fails_harms_nobody() {
    let world = world();
    let source = Scripted::new("a");
    source.sends_all(&world.bytes);
    world.blobs.commits.close();
    let handle = world.board(&world.wish(&source)).await;
    assert_eq!(read_all(handle.reader(None)).await.unwrap(), world.bytes);
    world.landed().await;
    assert!(!world.is_stored() && !world.is_fetched());
    assert_eq!(source.delivered.load(Ordering::SeqCst), 0);
    // But for who waits for the store, to whom it is no fetch that was ended.
    let failure = handle.kept(|_| {}).await.unwrap_err();
    assert!(matches!(failure, Failure::Store(_)), "{failure}");
}

#[tokio::test]
async fn a_verified_blob_whose_commit_failed_is_committed_later_without_another_fetch() {
    let world = world();
    let origin = world.origin();
    world.blobs.commits.close();
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    world.landed().await;
    assert!(!world.is_stored());
    assert_eq!(world.blobs.left(&world.stage()).await, MIB as u64);
}

#[tokio::test]
async fn what_was_left_and_cannot_be_taken_up_now_stays_for_later() {
    let world = world();
    let origin = world.origin();
    let (len, some) = (MIB as u64, Some(0..1000));
    world.blobs.leave(world.stage(), &world.bytes, len, some);

    world.blobs.full_for_left.store(true, Ordering::SeqCst);
    let failure = world.pull(&origin).await.unwrap_err();
    assert!(
        matches!(failure, Failure::Bypass(Uncached::NoRoom, _)),
        "{failure}"
    );
    world.landed().await;
    world.blobs.full_for_left.store(false, Ordering::SeqCst);

    world.blobs.left_unreadable.store(true, Ordering::SeqCst);
    let failure = world.pull(&origin).await.unwrap_err();
    assert!(matches!(failure, Failure::Store(_)), "{failure}");
    world.landed().await;
    world.blobs.left_unreadable.store(false, Ordering::SeqCst);

    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked(), [None, Some(1000..len)]);
}

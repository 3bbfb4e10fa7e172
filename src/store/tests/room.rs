//! What is given way to what, when there is no room.

use super::*;
use crate::store::testing::Sick;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn partials_count_and_are_the_first_to_go_the_oldest_first() {
    let fixture = Fixture::with_max_size(Some(8 * MIB)).await;
    fixture.store.scanned().await;
    for name in [b"a", b"b", b"c"] {
        fixture.leave(name, 2 * MIB).await;
        fixture.clock.advance(Duration::from_mins(1));
    }
    let count = |fixture: &Fixture| fixture.stages();
    // More than there is room for at all takes nothing away.
    assert!(fixture.stage(Some(9 * MIB)).await.is_err());
    assert_eq!(count(&fixture), 3);
    let stage = fixture.stage(Some(4 * MIB)).await.unwrap();
    assert_eq!(count(&fixture), 2 + 1);
    assert!(fixture.resume(b"a").await.is_none(), "the oldest");
    let held = fixture.resume(b"b").await.unwrap();
    assert!(matches!(
        fixture.stage(Some(4 * MIB)).await,
        Err(RoomError::NoRoom { .. })
    ));
    assert_eq!(count(&fixture), 3, "one idle would not have been enough");
    drop(stage);
    drop(held);
}

#[tokio::test]
async fn space_is_set_aside_for_more_and_more_of_what_comes_in_order_and_for_little_of_a_part() {
    let sick = Sick::new();
    let fixture = Fixture::on(Arc::clone(&sick) as _).await;
    let stage = fixture.stage(Some(100 * MIB)).await.unwrap();
    for at in (0..100).step_by(4) {
        stage.write_at(at * MIB, &content(0..MIB)).unwrap();
    }
    assert_eq!(sick.reserved(), [8, 8, 16, 32, 36].map(|mib| mib * MIB));
    let stage = fixture.stage(Some(100 * MIB)).await.unwrap();
    stage.write_at(50 * MIB, &content(0..MIB)).unwrap();
    assert_eq!(sick.reserved(), [8, 8].map(|mib| mib * MIB));
}

#[tokio::test]
async fn where_there_is_no_space_for_what_may_come_there_is_for_what_comes() {
    let sick = Sick::new();
    let fixture = Fixture::on(Arc::clone(&sick) as _).await;
    let stage = fixture.stage(Some(50 * MIB)).await.unwrap();
    sick.reserves_at_most(8 * MIB);
    for at in 0..50 {
        stage.write_at(at * MIB, &content(0..MIB)).unwrap();
    }
    let last = 2;
    assert_eq!(
        sick.reserved(),
        [8, 8, 8, 8, 8, 8, last].map(|mib| mib * MIB)
    );
}

#[tokio::test]
async fn partials_of_an_earlier_life_count() {
    let fixture = Fixture::new().await;
    fixture.leave(b"a", 2 * MIB).await;
    let fixture = fixture.restart_with(Some(3 * MIB)).await;
    fixture.store.scanned().await;
    let held = fixture.resume(b"a").await.unwrap();
    assert!(fixture.stage(Some(2 * MIB)).await.is_err());
    held.discard();
    drop(held);
    // What it took is free before its name is.
    fixture.settled(b"a").await;
    fixture.stage(Some(3 * MIB)).await.unwrap();
}

#[tokio::test]
async fn a_partial_that_there_is_no_room_to_complete_stays_for_later() {
    let fixture = Fixture::with_max_size(Some(24 * MIB)).await;
    fixture.store.scanned().await;
    let key = stage_key(b"a");
    let stage = fixture.store.stage(&key, Some(20 * MIB)).await.unwrap();
    stage.write_at(0, &content(0..MIB)).unwrap();
    drop(stage);
    fixture.settled(b"a").await;
    let digest = fixture.commit(&vec![1; 10 << 20]).await.unwrap();
    let answer = fixture.store.resume(&key).await;
    assert!(matches!(answer, Err(RoomError::NoRoom { .. })));
    assert!(fixture.store.remove_blob(&digest).await.unwrap());
    assert_eq!(fixture.resume(b"a").await.unwrap().present(), only(0..MIB));
}

#[tokio::test]
async fn a_partial_goes_for_a_new_start_only_where_there_is_room_for_that() {
    let fixture = Fixture::with_max_size(Some(8 * MIB)).await;
    fixture.store.scanned().await;
    let key = stage_key(b"a");
    fixture.leave(b"a", 4 * MIB).await;
    let refused = fixture.store.stage(&key, Some(9 * MIB)).await;
    assert!(matches!(refused, Err(RoomError::NoRoom { .. })));
    let kept = fixture.resume(b"a").await.unwrap();
    assert_eq!(kept.present(), only(0..4 * MIB - 1));
    drop(kept);
    // Its own room counts as free.
    let anew = fixture.store.stage(&key, Some(8 * MIB)).await.unwrap();
    assert!(anew.present().is_empty());
    anew.discard();
    drop(anew);
    fixture.settled(b"a").await;
    fixture.stage(Some(8 * MIB)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_refused_for_what_others_have_on_the_disk_and_what_is_stored_counts_when_it_is_known()
 {
    let fixture = Fixture::new().await;
    fixture.commit(&content(0..MIB)).await.unwrap();
    // The file system holds more than this; the data directory does not.
    let fixture = fixture.restart_with(Some(2 * MIB)).await;
    fixture.stage(Some(MIB)).await.unwrap();
    fixture.store.scanned().await;
    assert!(fixture.stage(Some(MIB + 1)).await.is_err());
}

#[tokio::test]
async fn whom_the_sums_refuse_again_and_again_does_not_call_the_disk_full() {
    let fixture = Fixture::new().await;
    fixture.store.scanned().await;
    let (asks, mut asked) = Asks::new();
    let own = &fixture.store.partials;
    let room = Room::new(
        Some(5),
        MinFree::Bytes(0),
        fixture.store.layout.root().to_owned(),
        Arc::new(Disk),
        Arc::clone(&fixture.store.usage),
        Arc::clone(&own.shelf),
        asks,
    );
    let partials = Partials {
        room: Arc::new(room),
        ..own.clone()
    };
    let stage = partials.stage(stage_key(b"a"), None).await.unwrap();
    let refused = async {
        assert!(partials.scratch(10).await.is_err());
        let written = tokio::task::spawn_blocking(move || stage.write_at(0, &[0; 10]));
        assert!(written.await.unwrap().is_err());
    };
    let answered = async {
        for _ in 0..8 {
            let ask = asked.recv().await.unwrap();
            assert!(!ask.want.is_disk_full);
            (ask.done)(Some(0));
        }
    };
    tokio::join!(refused, answered);
}

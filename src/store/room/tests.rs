use super::*;
use crate::store::files::Disk;
use crate::store::layout::Layout;

fn room(max_size: Option<u64>, min_free: MinFree) -> Room {
    let usage = Arc::new(Usage::new(Arc::default()));
    usage.set_scanned();
    let dir = std::env::temp_dir();
    let shelf = Arc::new(Shelf::new(Arc::new(Disk), Layout::new(dir.clone())));
    Room::new(max_size, min_free, dir, Arc::new(Disk), usage, shelf)
}

#[test]
fn reservations_count_against_the_limit_until_they_are_dropped() {
    let room = room(Some(100), MinFree::Bytes(0));
    let first = room.reserve(60).unwrap();
    assert!(matches!(
        room.reserve(41),
        Err(RoomError::NoRoom { needed: 41 })
    ));
    let second = room.reserve(40).unwrap();
    assert!(room.grow(&first, 61).is_err());
    drop(second);
    room.grow(&first, 100).unwrap();
    assert!(room.reserve(1).is_err());
    drop(first);
    room.reserve(100).unwrap();
}

#[test]
fn what_must_stay_free_is_not_given_away() {
    for min_free in [MinFree::Bytes(u64::MAX), MinFree::Share(1.0)] {
        let room = room(None, min_free);
        assert!(room.reserve(1).is_err(), "{min_free:?}");
        assert!(room.reserve(0).is_ok(), "{min_free:?}");
    }
}

use super::*;
use crate::store::files::Disk;
use crate::store::layout::Layout;
use crate::store::partial::{Idle, StageKey};

fn room(max_size: Option<u64>, min_free: MinFree) -> Room {
    let usage = Arc::new(Usage::new(Arc::default(), Some(0)));
    let dir = std::env::temp_dir();
    let shelf = Arc::new(Shelf::new(Arc::new(Disk), Layout::new(dir.clone())));
    let (asks, _) = Asks::new();
    Room::new(max_size, min_free, dir, Arc::new(Disk), usage, shelf, asks)
}

#[test]
fn reservations_count_against_the_limit_until_they_are_dropped() {
    let room = room(Some(100), MinFree::Bytes(0));
    let first = room.reserve(60).unwrap();
    assert!(matches!(
        room.reserve(41),
        Err(RoomError::NoRoom {
            needed: 41,
            is_disk_full: false
        })
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

fn snapshot(available: u64, ever_landed: u64) -> Snapshot {
    let total = 1000;
    Snapshot {
        taken: Instant::now(),
        space: Space { total, available },
        ever_landed,
    }
}

#[test]
fn what_lands_is_neither_counted_twice_nor_forgotten_before_the_file_system_is_asked_again() {
    let room = room(None, MinFree::Bytes(0));
    let (first, second) = (
        Reservation::nothing(&room.claims),
        Reservation::nothing(&room.claims),
    );
    let claim = |snapshot: &Snapshot, more| room.claim_by(snapshot, &second, more, 0);
    let before = snapshot(100, 0);
    assert_eq!(room.claim_by(&before, &first, 100, 0), Verdict::Fits);
    first.land(60);
    assert_eq!(claim(&before, 1), Verdict::TooMuch);
    let after = snapshot(40, 60);
    assert_eq!(claim(&after, 1), Verdict::TooMuch);
    // Committed: what landed stays where it is.
    first.release();
    assert_eq!(claim(&after, 41), Verdict::TooMuch);
    assert_eq!(claim(&after, 40), Verdict::Fits);
}

#[test]
fn only_what_would_help_is_asked_to_go() {
    let room = room(Some(500), MinFree::Bytes(10));
    let mine = Reservation::nothing(&room.claims);
    let idle = room.adopt(300);
    let verdict =
        |available, more| room.claim_by(&snapshot(available, 300), &mine, more, idle.held());
    assert_eq!(verdict(100, 91), Verdict::Crowded);
    assert_eq!(verdict(100, 391), Verdict::TooMuch);
    assert_eq!(verdict(900, 201), Verdict::Crowded);
    assert_eq!(verdict(900, 501), Verdict::TooMuch);
    assert_eq!(verdict(900, 200), Verdict::Fits);
}

#[test]
fn what_others_have_on_the_disk_does_not_count_against_the_limit_whether_all_is_counted_or_not() {
    for is_counted in [false, true] {
        let room = room(Some(500), MinFree::Bytes(0));
        if is_counted {
            room.usage.set_scanned();
        }
        let mine = Reservation::nothing(&room.claims);
        let verdict = |more| room.claim_by(&snapshot(400, 0), &mine, more, 0);
        assert_eq!(verdict(400), Verdict::Fits, "{is_counted}");
        assert_eq!(verdict(101), Verdict::TooMuch, "{is_counted}");
    }
}

#[test]
fn a_disk_that_is_full_for_no_known_reason_is_tried_again_as_long_as_an_idle_partial_goes() {
    let room = room(None, MinFree::Bytes(0));
    for name in [b"a", b"b"] {
        let key = StageKey::parse(crate::oci::Digest::sha256(name).encoded()).unwrap();
        let space = Arc::new(room.adopt(10));
        let since = std::time::SystemTime::UNIX_EPOCH;
        room.shelf.adopt(key, Idle { since, space });
    }
    let tries = std::cell::Cell::new(0);
    let full_until = |last: u32| {
        tries.set(0);
        room.with_space(|| {
            tries.set(tries.get() + 1);
            if tries.get() < last {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            Ok(tries.get())
        })
    };
    assert_eq!(full_until(2).unwrap(), 2);
    assert_eq!(room.shelf.idle_bytes(), 10);
    assert!(full_until(9).is_err());
    assert_eq!((tries.get(), room.shelf.idle_bytes()), (2, 0));
    let other = room.with_space(|| Err::<(), _>(io::ErrorKind::TimedOut.into()));
    assert!(other.is_err());
}

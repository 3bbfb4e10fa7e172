use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::oci::Algorithm;
use crate::runtime::Clock;

fn usage() -> Arc<Usage> {
    Arc::new(Usage::new(Arc::default(), Some(0)))
}

/// One that may choose.
fn ready() -> Arc<Usage> {
    let usage = usage();
    usage.set_scanned();
    usage.put_in_order();
    usage.set_pinned(DigestSet::default());
    usage
}

fn found(digest: &Digest, len: u64, used: SystemTime) -> Vec<Found> {
    vec![Found {
        digest: digest.clone(),
        len,
        used,
    }]
}

fn totals(bytes: u64, blobs: u64) -> Totals {
    Totals { bytes, blobs }
}

fn digest(number: u64) -> Digest {
    Digest::sha256(&number.to_le_bytes())
}

/// So many seconds after some beginning.
fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn chosen(usage: &Usage, demand: Demand, now: SystemTime) -> Vec<Digest> {
    let victims = usage.choose(demand, usize::MAX, now);
    let digests = victims.iter().filter_map(Victim::digest);
    digests.collect()
}

/// Everything that can go, in the order in which it would.
fn all_chosen(usage: &Usage, now: SystemTime) -> Vec<Digest> {
    let victims = usage.choose(Demand::Bytes(u64::MAX), usize::MAX, now);
    usage.put_back(&victims, now);
    victims.iter().filter_map(Victim::digest).collect()
}

#[test]
fn the_scan_does_not_bring_back_what_was_removed_meanwhile() {
    let usage = usage();
    let digest = digest(0);
    usage.remove(&digest);
    usage.add_found(found(&digest, 10, at(0)));
    assert_eq!(usage.totals(), totals(0, 0));
    usage.add(&digest, 10, at(0));
    usage.add_found(found(&digest, 99, at(0)));
    assert_eq!(usage.totals(), totals(10, 1));
    usage.set_scanned();
    usage.remove(&digest);
    assert_eq!(usage.totals(), totals(0, 0));
}

#[test]
fn a_blob_committed_twice_counts_once() {
    let usage = usage();
    let digest = Digest::of(Algorithm::Sha512, b"x").unwrap();
    usage.add(&digest, 10, at(0));
    usage.add(&digest, 10, at(0));
    assert_eq!(usage.totals(), totals(10, 1));
    assert_eq!(usage.metrics.cache.bytes.get(), 10);
    assert_eq!(usage.metrics.cache.blobs.get(), 1);
}

#[test]
fn a_last_use_is_written_once_a_minute_at_most_and_not_before_it_changed() {
    let usage = usage();
    usage.add(&digest(0), 10, at(0));
    usage.touch(&digest(0), at(59));
    assert_eq!(usage.take_unwritten(), vec![]);
    usage.touch(&digest(0), at(61));
    assert_eq!(usage.take_unwritten(), vec![(digest(0), at(61))]);
    assert_eq!(usage.take_unwritten(), vec![]);
}

#[test]
fn waiting_last_uses_are_bounded_and_of_what_is_there() {
    let usage = usage();
    let many = index::MOST_UNWRITTEN as u64 + 10;
    for n in 0..many {
        usage.add(&digest(n), 1, at(0));
        usage.touch(&digest(n), at(100));
    }
    usage.remove(&digest(0));
    usage.add(&digest(many), 1, at(0));
    let taken = usage.take_unwritten();
    assert_eq!(taken.len(), index::MOST_UNWRITTEN - 1);
    assert!(taken.iter().all(|(one, _)| *one != digest(many)));
}

#[test]
fn what_was_used_before_the_scan_came_to_it_is_known_from_then_on() {
    let usage = usage();
    drop(usage.open(&digest(0), 10, at(0), at(500)).unwrap());
    assert_eq!(usage.totals(), totals(10, 1));
    usage.add_found(found(&digest(0), 10, at(0)));
    assert_eq!(usage.used(&digest(0)), Some(at(500)));
    assert_eq!(usage.totals(), totals(10, 1));
    usage.set_scanned();
    // Whoever put it there: it was not there at start.
    drop(usage.open(&digest(1), 10, at(0), at(500)).unwrap());
    assert_eq!(usage.totals(), totals(10, 1));
}

#[test]
fn until_all_is_counted_what_the_last_life_left_is_taken() {
    let known = Usage::new(Arc::default(), Some(100));
    known.add(&digest(0), 10, at(0));
    assert_eq!(known.taken(), Some(110));
    known.remove(&digest(0));
    assert_eq!(known.taken(), Some(100));
    known.add_found(found(&digest(1), 150, at(0)));
    assert_eq!(known.taken(), Some(150));
    known.set_scanned();
    known.remove(&digest(1));
    assert_eq!(known.taken(), Some(0));
    let unknown = Usage::new(Arc::default(), None);
    unknown.add(&digest(0), 10, at(0));
    assert_eq!((unknown.taken(), unknown.expected()), (None, None));
    unknown.set_scanned();
    assert_eq!((unknown.taken(), unknown.expected()), (Some(10), Some(10)));
}

#[test]
fn what_loses_its_name_while_it_is_read_counts_until_its_last_reader_leaves() {
    let usage = ready();
    usage.add(&digest(0), 10, at(0));
    let one = usage.open(&digest(0), 10, at(0), at(1));
    let two = usage.open(&digest(0), 10, at(0), at(1));
    usage.remove(&digest(0));
    assert_eq!((usage.totals(), usage.taken()), (totals(0, 0), Some(10)));
    // Another file of the same name is not theirs.
    usage.add(&digest(0), 10, at(2));
    let three = usage.open(&digest(0), 10, at(2), at(2));
    assert_eq!(usage.taken(), Some(20));
    drop(one);
    assert_eq!(usage.taken(), Some(20));
    drop(two);
    assert_eq!(usage.taken(), Some(10));
    drop(three);
    assert_eq!(usage.taken(), Some(10));
    assert_eq!(all_chosen(&usage, at(3)), [digest(0)]);
    // Opened, and removed before that could be noted.
    let late = usage.open(&digest(1), 7, at(0), at(1));
    assert_eq!(usage.taken(), Some(17));
    drop(late);
    assert_eq!(usage.taken(), Some(10));
}

#[test]
fn the_file_that_a_commit_replaces_counts_until_its_last_reader_leaves() {
    let usage = ready();
    usage.add(&digest(0), 10, at(0));
    let reader = usage.open(&digest(0), 10, at(0), at(1));
    usage.add(&digest(0), 10, at(2));
    assert_eq!((usage.totals(), usage.taken()), (totals(10, 1), Some(20)));
    assert_eq!(all_chosen(&usage, at(3)), [digest(0)]);
    drop(reader);
    assert_eq!(usage.taken(), Some(10));
}

#[test]
fn those_spared_no_longer_are_looked_for_once_a_second_at_most() {
    let mut index = Index::new();
    let key = |number: u64| {
        let mut start = [0; 32];
        start[..8].copy_from_slice(&number.to_be_bytes());
        Key { start, rest: None }
    };
    let many = index::MOST_SPARED as u64;
    for n in 0..many {
        index.sweep_spared(100);
        assert!(index.spare(&key(n), 101 + u32::from(n == 0)));
    }
    index.sweep_spared(100);
    assert!(!index.spare(&key(many), 200), "all are spared still");
    assert!(index.spare(&key(0), 102), "known already");
    index.sweep_spared(101);
    assert_eq!(index.spared.len(), 1);
    for n in 1..many {
        assert!(index.spare(&key(n), 101));
    }
    index.sweep_spared(101);
    assert!(!index.spare(&key(many), 200), "looked for in this second");
    index.sweep_spared(102);
    assert!(index.spare(&key(many), 200));
}

#[test]
fn newcomers_go_first_while_they_are_more_than_a_quarter() {
    let usage = ready();
    for n in 0..8 {
        usage.add(&digest(n), 10, at(n));
    }
    // Within a minute of its arrival, that is not another use.
    usage.touch(&digest(7), at(30));
    for n in [0, 1, 2] {
        usage.touch(&digest(n), at(100 + n));
    }
    let order = [3, 4, 5, 6, 0, 7, 1, 2].map(digest);
    assert_eq!(all_chosen(&usage, at(200)), order);
}

#[test]
fn who_is_a_newcomer_is_told_by_the_fraction_of_the_mtime() {
    let usage = usage();
    let just = |seconds| at(seconds) + Duration::from_nanos(1);
    usage.add_found(found(&digest(0), 10, at(5)));
    usage.add_found(found(&digest(1), 10, just(9)));
    usage.add_found(found(&digest(2), 10, at(1)));
    usage.add_found(found(&digest(3), 10, just(3)));
    usage.set_pinned(DigestSet::default());
    usage.set_scanned();
    assert_eq!(all_chosen(&usage, at(9)), [], "not in order yet");
    usage.put_in_order();
    assert_eq!(all_chosen(&usage, at(9)), [3, 1, 2, 0].map(digest));
}

#[test]
fn manifests_go_last_and_what_was_just_asked_for_before_them() {
    let usage = ready();
    for n in 0..6 {
        usage.add(&digest(n), 10, at(n));
    }
    usage.mark_manifests(&[digest(0), digest(1)]);
    usage.spare(&[digest(0), digest(2), digest(9)], at(600), at(0));
    usage.add(&digest(9), 10, at(10));
    assert_eq!(
        all_chosen(&usage, at(599)),
        [3, 4, 5, 2, 9, 1, 0].map(digest)
    );
    assert_eq!(
        all_chosen(&usage, at(660)),
        [2, 3, 4, 5, 9, 0, 1].map(digest)
    );
}

#[test]
fn pinned_and_read_blobs_stay_whatever_is_wanted() {
    let usage = ready();
    for n in 0..4 {
        usage.add(&digest(n), 10, at(n));
    }
    let mut pins = DigestSet::default();
    pins.insert(&digest(1));
    usage.set_pinned(pins);
    let reading = usage.open(&digest(0), 10, at(0), at(4)).unwrap();
    assert_eq!(all_chosen(&usage, at(5)), [2, 3].map(digest));
    // Chosen before, pinned or opened since.
    let victims = usage.choose(Demand::Bytes(u64::MAX), 2, at(5));
    usage.pin_also(&[digest(2)]);
    let other = usage.open(&digest(3), 10, at(0), at(6)).unwrap();
    assert!(victims.iter().all(|victim| !usage.is_chosen(victim)));
    usage.put_back(&victims, at(6));
    drop((reading, other));
    assert_eq!(all_chosen(&usage, at(70)), [0, 3].map(digest));
    usage.set_pinned(DigestSet::default());
    assert_eq!(all_chosen(&usage, at(70)), [1, 2, 0, 3].map(digest));
}

#[test]
fn what_nobody_used_for_long_is_found_of_whatever_kind() {
    let usage = ready();
    for n in 0..6 {
        usage.add(&digest(n), 10, at(n));
    }
    usage.mark_manifests(&[digest(0), digest(4)]);
    usage.touch(&digest(1), at(100));
    usage.spare(&[digest(2)], at(1000), at(0));
    let demand = |now| Demand::unused_for(Duration::from_secs(100), at(now));
    assert_eq!(chosen(&usage, demand(104), at(104)), [3, 0].map(digest));
    assert_eq!(chosen(&usage, demand(105), at(105)), [4].map(digest));
}

#[test]
fn the_chosen_that_nobody_evicts_go_back_to_where_they_were() {
    let usage = ready();
    for n in 0..10 {
        usage.add(&digest(n), 10, at(n));
    }
    let before = all_chosen(&usage, at(10));
    let mut chosen = Chosen::new(&usage, &Clock::system());
    chosen.add_all(Demand::Bytes(51));
    assert_eq!((chosen.count(), chosen.bytes()), (6, 60));
    assert_eq!(all_chosen(&usage, at(10)).len(), 4);
    for victim in chosen.take_first(2).victims() {
        usage.evicted(victim);
    }
    assert_eq!((chosen.count(), chosen.bytes()), (4, 40));
    drop(chosen);
    assert_eq!(all_chosen(&usage, at(10)), before[2..]);
}

#[test]
fn enough_is_chosen_and_no_more() {
    let usage = ready();
    for n in 0..10 {
        usage.add(&digest(n), 10, at(n));
    }
    assert_eq!(chosen(&usage, Demand::Bytes(0), at(10)), []);
    assert_eq!(
        chosen(&usage, Demand::Bytes(11), at(10)),
        [0, 1].map(digest)
    );
    assert_eq!(usage.choose(Demand::Bytes(100), 3, at(10)).len(), 3);
}

#[test]
fn what_cannot_be_removed_is_tried_after_the_others() {
    let usage = ready();
    for n in 0..3 {
        usage.add(&digest(n), 10, at(n));
    }
    let victims = usage.choose(Demand::Bytes(10), 1, at(10));
    usage.put_last(&victims[0]);
    assert_eq!(all_chosen(&usage, at(10)), [1, 2, 0].map(digest));
}

/// What can happen to a blob.
#[derive(Debug, Clone)]
enum Act {
    Add(u64, u64),
    Touch(u64),
    Remove(u64),
    Mark(u64),
    Pin(Vec<u64>),
    Spare(u64),
    Open(u64),
    Close(u64),
    Evict(u64),
    Wait(u64),
}

/// The same said plainly.
#[derive(Debug, Default)]
struct Model {
    blobs: BTreeMap<u64, Blob>,
    pinned: Vec<u64>,
    spared: BTreeMap<u64, u64>,
    open: BTreeMap<u64, Vec<Reading>>,
}

#[derive(Debug, Clone)]
struct Blob {
    len: u64,
    used: u64,
    came: u64,
    is_other: bool,
    is_manifest: bool,
}

impl Model {
    /// What may go next. Which of the newcomers and the others is another test's.
    fn next(&self, now: u64) -> Vec<u64> {
        let is_free =
            |n: &u64| !self.pinned.contains(n) && self.open.get(n).is_none_or(Vec::is_empty);
        let is_spared = |n: &u64| self.spared.get(n).is_some_and(|&until| until > now);
        let of = |is_manifest: bool, spared: bool, is_other: Option<bool>| {
            let those = self.blobs.iter().filter(move |(n, blob)| {
                is_free(n)
                    && blob.is_manifest == is_manifest
                    && is_spared(n) == spared
                    && is_other.is_none_or(|is| is == blob.is_other)
            });
            those.min_by_key(|(_, blob)| blob.used).map(|(n, _)| *n)
        };
        let blobs = [false, true].map(|is_other| of(false, false, Some(is_other)));
        let blobs: Vec<u64> = blobs.into_iter().flatten().collect();
        if !blobs.is_empty() {
            return blobs;
        }
        let last = of(false, true, Some(false))
            .or_else(|| of(false, true, Some(true)))
            .or_else(|| of(true, false, None))
            .or_else(|| of(true, true, None));
        last.into_iter().collect()
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let blob = 0..12_u64;
    let act = prop_oneof![
        4 => (blob.clone(), 1..50_u64).prop_map(|(n, len)| Act::Add(n, len)),
        4 => blob.clone().prop_map(Act::Touch),
        1 => blob.clone().prop_map(Act::Remove),
        1 => blob.clone().prop_map(Act::Mark),
        1 => prop::collection::vec(blob.clone(), 0..3).prop_map(Act::Pin),
        1 => blob.clone().prop_map(Act::Spare),
        1 => blob.clone().prop_map(Act::Open),
        1 => blob.prop_map(Act::Close),
        3 => (1..100_u64).prop_map(Act::Evict),
        2 => (1..200_u64).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #[test]
    fn the_index_does_what_a_plain_model_does(acts in acts()) {
        let usage = ready();
        let mut model = Model::default();
        let mut now = 0;
        for act in acts {
            // No two uses in the same second: between those, any order is right.
            now += 1;
            match act {
                Act::Add(n, len) => {
                    usage.add(&digest(n), len, at(now));
                    let blob = model.blobs.entry(n).or_insert(Blob {
                        len, used: now, came: now, is_other: false, is_manifest: false,
                    });
                    (blob.len, blob.used, blob.came) = (len, now, now);
                    // They read the file that was there before.
                    model.open.remove(&n);
                }
                Act::Touch(n) => {
                    usage.touch(&digest(n), at(now));
                    if let Some(blob) = model.blobs.get_mut(&n) {
                        blob.used = now;
                        blob.is_other |= now - blob.came >= 60 && !blob.is_manifest;
                    }
                }
                Act::Remove(n) => {
                    usage.remove(&digest(n));
                    model.blobs.remove(&n);
                    model.open.remove(&n);
                }
                Act::Mark(n) => {
                    usage.mark_manifests(&[digest(n)]);
                    if let Some(blob) = model.blobs.get_mut(&n) {
                        blob.is_manifest = true;
                    }
                }
                Act::Pin(pinned) => {
                    let mut set = DigestSet::default();
                    for n in &pinned {
                        set.insert(&digest(*n));
                    }
                    usage.set_pinned(set);
                    model.pinned = pinned;
                }
                Act::Spare(n) => {
                    usage.spare(&[digest(n)], at(now + 600), at(now));
                    model.spared.insert(n, now + 600);
                }
                Act::Open(n) => if let Some(blob) = model.blobs.get_mut(&n) {
                    let reading = usage.open(&digest(n), blob.len, at(0), at(now)).unwrap();
                    blob.used = now;
                    blob.is_other |= now - blob.came >= 60 && !blob.is_manifest;
                    model.open.entry(n).or_default().push(reading);
                },
                Act::Close(n) => {
                    model.open.get_mut(&n).and_then(Vec::pop);
                    // Who was passed over for having been read is looked at again within a minute.
                    now += 60;
                }
                Act::Evict(bytes) => {
                    // The same for who was spared.
                    now += 60;
                    let victims = usage.choose(Demand::Bytes(bytes), usize::MAX, at(now));
                    let mut freed = 0;
                    for victim in &victims {
                        prop_assert!(freed < bytes);
                        let may_go = model.next(now);
                        let n = may_go.into_iter().find(|n| Some(digest(*n)) == victim.digest());
                        prop_assert!(n.is_some(), "{victim:?}");
                        let blob = n.and_then(|n| model.blobs.remove(&n));
                        freed += blob.map_or(0, |blob| blob.len);
                        prop_assert!(usage.is_chosen(victim));
                        usage.evicted(victim);
                    }
                    prop_assert!(freed >= bytes || model.next(now).is_empty());
                }
                Act::Wait(seconds) => now += seconds,
            }
            let bytes: u64 = model.blobs.values().map(|blob| blob.len).sum();
            prop_assert_eq!(usage.totals(), totals(bytes, model.blobs.len() as u64));
        }
    }
}

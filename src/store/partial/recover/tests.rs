use std::collections::BTreeSet;
use std::fs;
use std::io::IoSlice;
use std::path::PathBuf;
use std::slice;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::store::files::Disk;

const LEN: u64 = 1_500_000;
const BEFORE: BootId = BootId([1; 16]);
const AFTER: BootId = BootId([2; 16]);

proptest! {
    #[test]
    fn intervals_hold_what_a_set_of_positions_holds(
        ranges in prop::collection::vec((0u64..80, 1u64..20), 0..24)
    ) {
        let (mut present, mut model) = (Present::default(), BTreeSet::new());
        for (start, len) in ranges {
            present.insert(start..start + len);
            model.extend(start..start + len);
        }
        let ranges = present.into_ranges();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        prop_assert_eq!(ranges.into_iter().flatten().collect::<BTreeSet<_>>(), model);
    }
}

/// Bytes of which none is zero, and that tell where they belong.
fn content(range: Range<u64>) -> Vec<u8> {
    range
        .map(|at| (at * 0x9e37_79b9).to_le_bytes()[3] | 1)
        .collect()
}

/// A partial on disk.
struct Partial {
    dir: tempfile::TempDir,
    files: Arc<dyn Files>,
    data: File,
}

impl Partial {
    /// Writes these parts, in this order, and notes them.
    fn new(parts: &[Range<u64>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files: Arc<dyn Files> = Arc::new(Disk);
        let data = files.create(&dir.path().join("data")).unwrap();
        let header = LogHeader {
            boot: BEFORE,
            len: LEN,
        };
        let log = dir.path().join("log");
        let mut journal = Journal::new(Arc::clone(&files), log, header);
        for part in parts {
            let bytes = content(part.clone());
            files.write_at(&data, part.start, &bytes).unwrap();
            journal.written(part.start, &[IoSlice::new(&bytes)]);
        }
        journal.flush();
        Self { dir, files, data }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn change_log(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.log()).unwrap();
        change(&mut bytes);
        fs::write(self.log(), bytes).unwrap();
    }

    /// Has the page of this byte read as zeros.
    fn lose_page(&self, at: u64) {
        let at = at / 4096 * 4096;
        let left = self.data.metadata().unwrap().len().saturating_sub(at);
        let zeros = vec![0; usize::try_from(left.min(4096)).unwrap()];
        self.files.write_at(&self.data, at, &zeros).unwrap();
    }

    fn recover(&self, boot: BootId) -> Option<Recovered> {
        let scratch = self.dir.path().join("scratch");
        let found = recover(&self.files, &self.data, &self.log(), &scratch, boot).unwrap();
        assert!(!scratch.try_exists().unwrap());
        found
    }

    fn present(&self, boot: BootId) -> Vec<Range<u64>> {
        self.recover(boot).map_or(Vec::new(), |found| found.present)
    }

    /// The parts said to be present whose bytes are not what was written.
    fn wrong(&self, present: &[Range<u64>]) -> Vec<Range<u64>> {
        let is_wrong = |range: &&Range<u64>| {
            let expected = content((*range).clone());
            let mut bytes = vec![0; expected.len()];
            let read = self.files.read_at(&self.data, range.start, &mut bytes);
            read.is_err() || bytes != expected
        };
        present.iter().filter(is_wrong).cloned().collect()
    }
}

/// Parts of the blob in any order, in pieces of any size.
fn parts() -> impl Strategy<Value = Vec<Range<u64>>> {
    let part = (0..LEN, prop_oneof![1..100_u64, 1..300_000_u64]);
    let part = part.prop_map(|(start, len)| start..LEN.min(start + len));
    prop::collection::vec(part, 1..12)
}

/// What happens to the bytes of a log.
fn damage() -> impl Strategy<Value = Vec<(u8, Index, u8)>> {
    prop::collection::vec((0..3_u8, any::<Index>(), any::<u8>()), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_and_lost_nothing_wrong_is_present(
        parts in parts(), damage in damage(), zeroed in prop::collection::vec(0..LEN, 0..4),
        is_rebooted in any::<bool>()
    ) {
        let partial = Partial::new(&parts);
        partial.change_log(|log| for (how, at, with) in damage {
            match (how, log.is_empty()) {
                (0, _) => log.truncate(at.index(log.len() + 1)),
                (1, false) => {
                    let at = at.index(log.len());
                    log[at] = with;
                }
                _ => log.extend([with; 45]),
            }
        });
        // Under the same boot id, no written page is lost.
        for at in zeroed.into_iter().filter(|_| is_rebooted) {
            partial.lose_page(at);
        }
        let boot = if is_rebooted { AFTER } else { BEFORE };
        let present = partial.present(boot);
        prop_assert_eq!(partial.wrong(&present), vec![]);
        // What was good then is good now, without another look.
        prop_assert_eq!(partial.present(boot), present);
    }
}

#[test]
fn all_that_was_written_is_present_under_either_boot_id() {
    let parts = [1_000_000..LEN, 0..10, 10..600_000];
    for boot in [BEFORE, AFTER] {
        let found = Partial::new(&parts).recover(boot).unwrap();
        assert_eq!(found.len, LEN);
        assert_eq!(found.present, [0..600_000, 1_000_000..LEN]);
    }
}

#[test]
fn a_lost_page_costs_its_block_after_a_reboot_and_stays_lost() {
    let partial = Partial::new(slice::from_ref(&(0..LEN)));
    partial.lose_page(300_000);
    let expected = [0..262_144, 524_288..LEN];
    assert_eq!(partial.present(AFTER), expected);
    // The log is one of this boot now, and trusted.
    partial.lose_page(0);
    assert_eq!(partial.present(AFTER), expected);
    assert_eq!(partial.present(BEFORE), slice::from_ref(&expected[1]));
}

#[test]
fn a_log_goes_on_where_the_old_one_was() {
    let partial = Partial::new(slice::from_ref(&(0..500_000)));
    let mut journal = partial.recover(BEFORE).unwrap().journal.unwrap();
    let bytes = content(500_000..LEN);
    partial
        .files
        .write_at(&partial.data, 500_000, &bytes)
        .unwrap();
    journal.written(500_000, &[IoSlice::new(&bytes)]);
    journal.flush();
    assert_eq!(partial.present(AFTER), slice::from_ref(&(0..LEN)));
}

#[test]
fn a_log_is_bounded_whatever_is_written() {
    let partial = Partial::new(slice::from_ref(&(0..500_000)));
    let mut journal = partial.recover(BEFORE).unwrap().journal.unwrap();
    for at in (0..LEN).step_by(20) {
        journal.written(at, &[IoSlice::new(&[1])]);
    }
    journal.flush();
    let len = fs::metadata(partial.log()).unwrap().len();
    assert!((1 << 20..(1 << 20) + LEN / 64).contains(&len), "{len}");
    let found = partial.recover(BEFORE).unwrap();
    assert!(found.present.contains(&(0..500_000)));
}

#[test]
fn data_that_is_longer_than_the_blob_is_none_of_it() {
    let partial = Partial::new(slice::from_ref(&(0..LEN)));
    partial.data.set_len(LEN + 1).unwrap();
    assert_eq!(partial.present(BEFORE), []);
}

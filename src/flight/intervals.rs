//! Which bytes of a blob are there: a set of disjoint, sorted intervals. Pure.

use std::ops::Range;

/// Byte positions, kept as intervals that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<Range<u64>>);

impl Intervals {
    /// Adds `range`. Returns how many of its bytes were not there before.
    pub(super) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        // The intervals that touch or overlap the new one are a run: `first..last`.
        let first = self.0.partition_point(|have| have.end < range.start);
        let last = self.0.partition_point(|have| have.start <= range.end);
        let touched = &self.0[first..last];
        let mut merged = range.clone();
        let mut known = 0;
        for have in touched {
            known += overlap(have, &range);
            merged.start = merged.start.min(have.start);
            merged.end = merged.end.max(have.end);
        }
        self.0.splice(first..last, [merged]);
        (range.end - range.start) - known
    }

    /// End of the run of bytes that are there from `position` on; `position` itself where its byte is missing.
    pub(super) fn run_from(&self, position: u64) -> u64 {
        let next = self.0.partition_point(|have| have.end <= position);
        match self.0.get(next) {
            Some(have) if have.start <= position => have.end,
            _ => position,
        }
    }

    /// Where the first interval begins that lies beyond `position`.
    pub(super) fn next_start(&self, position: u64) -> Option<u64> {
        let next = self.0.partition_point(|have| have.start <= position);
        self.0.get(next).map(|have| have.start)
    }

    /// End of the last interval; 0 without any.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |have| have.end)
    }

    /// The intervals in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|have| have.end - have.start).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_become_one() {
        let mut set = Intervals::default();
        assert_eq!(set.insert(0..10), 10);
        assert_eq!(set.insert(20..30), 10);
        assert_eq!(set.insert(10..20), 10);
        assert_eq!(set.0.len(), 1);
        assert_eq!(set.run_from(0), 30);
    }

    #[test]
    fn islands_are_found_from_both_sides() {
        let mut set = Intervals::default();
        assert_eq!((set.next_start(0), set.end()), (None, 0));
        set.insert(10..20);
        set.insert(50..60);
        assert_eq!(set.next_start(0), Some(10));
        assert_eq!(set.next_start(10), Some(50));
        assert_eq!(set.next_start(50), None);
        assert_eq!(set.end(), 60);
        assert_eq!(set.run_from(50), 60);
        assert_eq!(set.run_from(60), 60);
        assert_eq!(set.run_from(49), 49);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_of_positions_holds(ranges in prop::collection::vec((0u64..80, 0u64..20), 0..24)) {
            let mut set = Intervals::default();
            let mut model = BTreeSet::new();
            for (start, len) in ranges {
                let before = model.len();
                model.extend(start..start + len);
                prop_assert_eq!(set.insert(start..start + len), (model.len() - before) as u64);
                prop_assert_eq!(set.len(), model.len() as u64);
                for pair in set.0.windows(2) {
                    prop_assert!(pair[0].end < pair[1].start);
                }
                for position in 0..100 {
                    let mut end = position;
                    while model.contains(&end) {
                        end += 1;
                    }
                    prop_assert_eq!(set.run_from(position), end);
                }
            }
        }
    }
}

//! Makes blocks of what is written, in whatever order and pieces it comes. Pure.
//!
//! Writes that go on where an earlier one ended grow the same block, which is done at the next multiple of
//! [`MAX_BLOCK`]. How much is in blocks that are not done yet is bounded, and so is their number.

use std::collections::BTreeMap;
use std::hash::Hasher;

use twox_hash::XxHash3_64;

use super::log::{Block, MAX_BLOCK};

/// The blocks that are being written.
#[derive(Default)]
pub(super) struct Blocks {
    /// By where they end so far.
    growing: BTreeMap<u64, Growing>,
    /// The bytes in them.
    bytes: u64,
}

struct Growing {
    start: u64,
    hasher: XxHash3_64,
}

impl Blocks {
    /// Takes in what was written at `offset`, and adds the blocks that are done to `done`.
    pub(super) fn add(&mut self, offset: u64, bytes: &[u8], done: &mut Vec<Block>) {
        if bytes.is_empty() {
            return;
        }
        let mut at = offset;
        let mut block = self.take(offset).unwrap_or_else(|| Growing::at(offset));
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_BLOCK - at % MAX_BLOCK;
            let most = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at(most);
            block.hasher.write(piece);
            at = at.saturating_add(u64::try_from(most).unwrap_or(u64::MAX));
            rest = after;
            if at.is_multiple_of(MAX_BLOCK) {
                done.push(block.done(at));
                block = Growing::at(at);
            }
        }
        if block.start < at {
            self.put(at, block, done);
        }
        while self.bytes > MOST_BYTES || self.growing.len() > MOST_GROWING {
            self.end_longest(done);
        }
    }

    /// Ends all blocks.
    pub(super) fn finish(&mut self, done: &mut Vec<Block>) {
        let all = std::mem::take(&mut self.growing).into_iter();
        done.extend(all.map(|(end, block)| block.done(end)));
        self.bytes = 0;
    }

    fn take(&mut self, end: u64) -> Option<Growing> {
        let block = self.growing.remove(&end)?;
        self.bytes = self.bytes.saturating_sub(end.saturating_sub(block.start));
        Some(block)
    }

    fn put(&mut self, end: u64, block: Growing, done: &mut Vec<Block>) {
        // Two that end at one place: the bytes there were written twice.
        if let Some(other) = self.take(end) {
            done.push(other.done(end));
        }
        self.bytes = self.bytes.saturating_add(end.saturating_sub(block.start));
        self.growing.insert(end, block);
    }

    fn end_longest(&mut self, done: &mut Vec<Block>) {
        let all = self.growing.iter();
        let longest = all.max_by_key(|(end, block)| end.saturating_sub(block.start));
        let Some(end) = longest.map(|(&end, _)| end) else {
            return;
        };
        if let Some(block) = self.take(end) {
            done.push(block.done(end));
        }
    }
}

impl Growing {
    fn at(start: u64) -> Self {
        Self {
            start,
            hasher: XxHash3_64::new(),
        }
    }

    fn done(self, end: u64) -> Block {
        Block {
            start: self.start,
            end,
            checksum: self.hasher.finish(),
        }
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks")
            .field("growing", &self.growing.len())
            .field("bytes", &self.bytes)
            .finish()
    }
}

/// Bytes that may be in blocks that are not done: what a kill loses at most, beside the write under way, and a block before there is
/// a log.
const MOST_BYTES: u64 = 768 * 1024;

/// Blocks that may grow at once: more than a fetch has steps under way.
const MOST_GROWING: usize = 32;

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::log::checksum;
    use super::*;

    /// Bytes that tell where they belong, copied rather than made: there are many.
    fn content(range: std::ops::Range<u64>) -> Vec<u8> {
        static PERIOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let bytes = (0..65_537_u64).map(|at| (at * 0x9e37_79b9).to_le_bytes()[3]);
            bytes.collect()
        });
        let period = PERIOD.len();
        let len = usize::try_from(range.end - range.start).unwrap();
        let mut from = usize::try_from(range.start).unwrap() % period;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let to = period.min(from + len - bytes.len());
            bytes.extend_from_slice(&PERIOD[from..to]);
            from = 0;
        }
        bytes
    }

    /// Islands written a piece at a time, in turns that the second number chooses.
    fn writes() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let piece = prop_oneof![1..20_u64, 1..5000_u64, Just(MAX_BLOCK), 1..600_000_u64];
        let islands = prop::collection::vec(0..8_000_000_u64, 1..50);
        let steps = prop::collection::vec((any::<prop::sample::Index>(), piece), 1..50);
        (islands, steps).prop_map(|(mut ends, steps)| {
            let step = |(which, len): (prop::sample::Index, u64)| {
                let end = which.get_mut(&mut ends);
                let start = *end;
                *end += len;
                (start, len)
            };
            steps.into_iter().map(step).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn blocks_cover_what_was_written_and_little_is_ever_outstanding(writes in writes()) {
            let mut blocks = Blocks::default();
            let mut done = Vec::new();
            let mut written = 0;
            for &(start, len) in &writes {
                blocks.add(start, &content(start..start + len), &mut done);
                written += len;
                let covered: u64 = done.iter().map(|block| block.end - block.start).sum();
                prop_assert!(written - covered <= MOST_BYTES);
                prop_assert!(blocks.growing.len() <= MOST_GROWING);
            }
            blocks.finish(&mut done);
            let covered: u64 = done.iter().map(|block| block.end - block.start).sum();
            prop_assert_eq!(covered, written);
            for block in &done {
                prop_assert!(block.end - block.start <= MAX_BLOCK);
                prop_assert_eq!(block.checksum, checksum(&content(block.start..block.end)));
                let inside = writes.iter().any(|&(start, len)| (start..start + len).contains(&block.start));
                prop_assert!(inside, "{:?}", block);
            }
        }
    }

    #[test]
    fn pieces_in_order_make_one_block_for_each_quarter_mebibyte() {
        let mut blocks = Blocks::default();
        let mut done = Vec::new();
        for start in (0..1_000_000).step_by(1000) {
            blocks.add(start, &content(start..start + 1000), &mut done);
        }
        blocks.finish(&mut done);
        let ends: Vec<_> = done.iter().map(|block| block.end).collect();
        assert_eq!(ends, [262_144, 524_288, 786_432, 1_000_000]);
    }
}

//! The index for whoever measures it from outside.

use super::choose::Demand;
use super::index::Index;
use super::key::Key;
use super::nodes::{Seconds, Segment};
use super::reading::Readers;
use crate::oci::Digest;

/// An index of its own, of blobs that are not there.
#[derive(Debug)]
#[doc(hidden)]
pub struct IndexProbe {
    index: Index,
    readers: Readers,
}

impl IndexProbe {
    /// An index of these blobs, each with the time of its last use, as after a scan at start.
    pub fn of(blobs: impl Iterator<Item = (Digest, u64, u32)>) -> Self {
        let mut index = Index::new();
        for (digest, len, used) in blobs {
            let segment = if used.is_multiple_of(4) {
                Segment::Others
            } else {
                Segment::Newcomers
            };
            if let Some(key) = Key::of(&digest) {
                index.add_found(&key, len, used, segment);
            }
        }
        let mut found = index.found();
        found.sort_unstable_by(|a, b| b.cmp(a));
        index.place_found(&found);
        Self {
            index,
            readers: Readers::default(),
        }
    }

    /// How many blobs there are.
    pub fn len(&self) -> usize {
        self.index.count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pins a blob.
    pub fn pin(&mut self, digest: &Digest) {
        self.index.pinned.insert(digest);
    }

    /// Chooses and removes so many blobs; their bytes.
    pub fn evict(&mut self, count: usize, now: Seconds) -> u64 {
        let demand = Demand::Bytes(u64::MAX);
        let victims = self.index.choose(demand, count, now, &self.readers);
        let removed = victims.iter().filter_map(|one| self.index.remove(&one.key));
        removed.fold(0, u64::saturating_add)
    }
}

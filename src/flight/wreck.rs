//! What a fetch leaves its readers when the disk fails under it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::intervals::Intervals;
use super::ports::{Chunk, Stage};
use crate::oci::Hasher;

/// The bytes that were written before the disk failed, and the state of their hash: enough to go on from a source of one's
/// own, and still never to deliver a whole that does not match.
pub struct Wreck {
    pub(super) error: Arc<io::Error>,
    pub(super) stage: Arc<dyn Stage>,
    pub(super) present: Intervals,
    pub(super) size: Option<u64>,
    /// Bytes from the start that went into the hash.
    pub(super) hashed: u64,
    pub(super) hasher: Hasher,
}

impl Wreck {
    /// What failed.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The blob's size, if an upstream told.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The bytes from `range.start` on that were written, as far as `range` goes.
    pub fn chunk(&self, range: Range<u64>) -> Option<Chunk> {
        let end = self.present.run_from(range.start).min(range.end);
        (range.start < end).then(|| self.stage.chunk(range.start..end))
    }

    /// Where the next written bytes begin, beyond `position`.
    pub fn next_written(&self, position: u64) -> Option<u64> {
        self.present.next_start(position)
    }

    /// The state of the hash, and how many bytes from the start are in it.
    pub fn hash(&self) -> (Hasher, u64) {
        (self.hasher.clone(), self.hashed)
    }
}

impl fmt::Debug for Wreck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wreck")
            .field("error", &self.error)
            .field("hashed", &self.hashed)
            .finish_non_exhaustive()
    }
}

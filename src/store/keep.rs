//! What those who know what blobs mean say of them: which were used, which must stay, and when some have to go.

use std::io;
use std::time::SystemTime;

use super::{Evicted, RoomError, StagedBlob, Store};
use crate::oci::{Digest, DigestSet};

impl Store {
    /// A new place for a blob of `len` bytes that nobody will resume.
    pub async fn scratch(&self, len: u64) -> Result<StagedBlob, RoomError> {
        self.partials.scratch(len).await
    }

    /// How many bytes are missing for `more` bytes of blobs to have room, when all is gone that may go for them. Blocks.
    pub fn missing_room(&self, more: u64) -> io::Result<u64> {
        let shortage = self.partials.room.shortage(more)?;
        let may_go = if self.evicts { shortage.most } else { 0 };
        let must_go = shortage.by_size.max(shortage.by_space);
        Ok(must_go.saturating_sub(may_go))
    }

    /// Notes the use of a blob that was not opened for it, since its bytes are in memory.
    pub fn note_use(&self, digest: &Digest) {
        self.usage.touch(digest, self.clock.now());
    }

    /// Has blobs, stored or to come, go only when nothing else is left, until then.
    pub fn spare(&self, digests: &[Digest], until: SystemTime) {
        self.usage.spare(digests, until, self.clock.now());
    }

    /// Replaces the set of blobs that are never evicted. Nothing is before this was called once.
    pub fn set_pinned(&self, pinned: DigestSet) {
        self.usage.set_pinned(pinned);
    }

    /// Adds to the set of blobs that are never evicted.
    pub fn pin_also(&self, digests: &[Digest]) {
        self.usage.pin_also(digests);
    }

    /// Whether a blob is in that set.
    pub fn is_pinned(&self, digest: &Digest) -> bool {
        self.usage.is_pinned(digest)
    }

    /// Evicts what is above `to` bytes of blobs, or, without it, what the limits and the age ask for; with `dry_run`, only
    /// says what that would be. What is pinned or being read stays. Takes until all blobs are counted, at least.
    pub async fn collect(&self, to: Option<u64>, dry_run: bool) -> io::Result<Evicted> {
        self.evictor.collect(to, dry_run).await
    }
}

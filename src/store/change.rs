//! What the committer is asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::oci::Digest;

use super::damaged::Aside;
use super::evict::Outcome;
use super::files::FileId;
use super::orphan::Orphan;
use super::partial::Committing;
use super::usage::Chosen;

/// What can be asked of the committer.
#[derive(Debug)]
pub(super) enum Change {
    /// Makes the stage, `len` bytes long, the blob `digest` at `target`; `false` where it took the place of one.
    Commit {
        stage: Committing,
        len: u64,
        digest: Digest,
        target: PathBuf,
        /// When it was asked for: the blob's first use.
        at: SystemTime,
    },
    /// Writes the record at `target`; `false` where it is not as expected.
    PutRecord {
        target: PathBuf,
        expected: Expected,
        bytes: Vec<u8>,
    },
    /// Removes the record at `target`; `false` where there is none.
    RemoveRecord {
        target: PathBuf,
        /// Only if it is this still.
        only_if: Option<Seen>,
    },
    /// Removes the blob at `target`; `false` where there is none.
    RemoveBlob {
        digest: Digest,
        target: PathBuf,
        /// Only if it has so many bytes still.
        of_len: Option<u64>,
    },
    /// Moves the blob at `target` to `aside`, or removes it without one; `false` where it is not the file `seen`, which the caller holds open, any
    /// more.
    MoveAside {
        digest: Digest,
        target: PathBuf,
        seen: FileId,
        aside: Option<Aside>,
    },
    /// Removes blobs that were chosen to go; `target` is where they all are.
    Evict {
        chosen: Chosen,
        outcome: Arc<Outcome>,
        target: PathBuf,
    },
}

/// What must be there for a record to be removed.
#[derive(Debug)]
pub(super) enum Seen {
    /// A proof of something that is not there.
    Orphan(Orphan),
    /// Exactly this.
    Bytes(Vec<u8>),
}

/// What must be there for a record to be replaced.
#[derive(Debug)]
pub(super) enum Expected {
    /// Anything or nothing.
    Whatever,
    /// Exactly this; `None`: nothing.
    Exactly(Option<Vec<u8>>),
}

impl Change {
    /// Whether there may be so much content that the disk has not taken yet that others should not wait for it.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Commit { stage, .. } if stage.is_behind())
    }

    /// Makes the content durable that is to be committed, if any. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Commit { stage, .. } => stage.stage().sync(),
            _ => Ok(()),
        }
    }

    /// The path that is changed.
    pub(super) fn target(&self) -> &Path {
        match self {
            Self::Commit { target, .. }
            | Self::PutRecord { target, .. }
            | Self::RemoveRecord { target, .. }
            | Self::RemoveBlob { target, .. }
            | Self::MoveAside { target, .. }
            | Self::Evict { target, .. } => target,
        }
    }
}

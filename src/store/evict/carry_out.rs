//! The committer's part: removing the names of what is still to go.

use parking_lot::Mutex;

use super::Evicted;
use crate::store::files::{Files, is_absent};
use crate::store::layout::Layout;
use crate::store::usage::{Chosen, Usage};

/// What came of an eviction.
#[derive(Debug, Default)]
pub(in crate::store) struct Outcome(Mutex<Gone>);

/// What is no longer there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gone {
    /// What was removed.
    pub(super) evicted: Evicted,
    /// What somebody else had removed before.
    pub(super) absent: Evicted,
}

impl Gone {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            evicted: self.evicted.and(other.evicted),
            absent: self.absent.and(other.absent),
        }
    }

    /// The bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        self.evicted.and(self.absent).bytes
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.evicted.and(self.absent).blobs == 0
    }
}

impl Outcome {
    pub(super) fn gone(&self) -> Gone {
        *self.0.lock()
    }
}

/// Removes the names of the chosen but of those that were used, opened or pinned since. Nothing is synced: what a power
/// loss brings back is as good as before. Blocks.
pub(in crate::store) fn carry_out(
    files: &dyn Files,
    layout: &Layout,
    usage: &Usage,
    chosen: &Chosen,
    outcome: &Outcome,
) {
    for victim in chosen.victims() {
        let path = victim.digest().and_then(|digest| layout.blob(&digest));
        let Some(path) = path.filter(|_| usage.is_chosen(victim)) else {
            continue;
        };
        let one = Evicted {
            blobs: 1,
            bytes: victim.len,
        };
        match files.unlink(&path) {
            Ok(()) => {
                usage.evicted(victim);
                let mut gone = outcome.0.lock();
                gone.evicted = gone.evicted.and(one);
            }
            Err(error) if is_absent(&error) => {
                usage.evicted(victim);
                let mut gone = outcome.0.lock();
                gone.absent = gone.absent.and(one);
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a blob cannot be evicted; check owner and mode");
                usage.put_last(victim);
            }
        }
    }
}

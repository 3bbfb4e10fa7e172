//! The committer's part: removing the names of what is still to go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::Evicted;
use crate::store::files::{Files, is_absent};
use crate::store::layout::Layout;
use crate::store::usage::{Usage, Victim};

/// What came of an eviction.
#[derive(Debug, Default)]
pub(in crate::store) struct Outcome {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Outcome {
    pub(super) fn evicted(&self) -> Evicted {
        Evicted {
            blobs: self.blobs.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Acquire),
        }
    }

    fn add(&self, len: u64) {
        self.bytes.fetch_add(len, Ordering::Release);
        self.blobs.fetch_add(1, Ordering::Release);
    }
}

/// Removes the names of the victims but of those that were used, opened or pinned since they were chosen. Nothing is
/// synced: what a power loss brings back is as good as before. Blocks.
pub(in crate::store) fn carry_out(
    files: &dyn Files,
    layout: &Layout,
    usage: &Usage,
    victims: &[Victim],
    outcome: &Outcome,
    now: SystemTime,
) {
    for victim in victims {
        let path = victim.digest().and_then(|digest| layout.blob(&digest));
        let Some(path) = path.filter(|_| usage.is_chosen(victim)) else {
            usage.put_back(std::slice::from_ref(victim), now);
            continue;
        };
        match files.unlink(&path) {
            Ok(()) => {
                usage.evicted(victim);
                outcome.add(victim.len);
            }
            Err(error) if is_absent(&error) => usage.evicted(victim),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a blob cannot be evicted; check owner and mode");
                usage.put_last(victim);
            }
        }
    }
}

//! What is done about a stored blob that is not what it should be; the same for a verification and for the scrub.

use std::sync::Arc;

use crate::oci::Digest;
use crate::store::{Faulty, SetAside, Soundness, Store};
use crate::telemetry::Metrics;

use super::memory::Memory;
use super::model::{Finding, FindingKind};

/// Moves aside what is not sound, and tells of it.
pub(super) struct Healer {
    pub(super) store: Arc<Store>,
    pub(super) memory: Memory,
    pub(super) metrics: Arc<Metrics>,
}

impl Healer {
    /// Does what is to be done; `None` for a blob that is sound, or gone. `known` is the longest that is known of it.
    pub(super) async fn heal(
        &self,
        digest: &Digest,
        soundness: Soundness,
        known: Option<u64>,
    ) -> Option<Finding> {
        let (kind, found, file) = match soundness {
            Soundness::Sound | Soundness::Missing => return None,
            Soundness::Closed(error) => return Some(closed(digest, &error)),
            Soundness::Unreadable(error, file) => {
                (FindingKind::Unreadable, error.to_string(), file)
            }
            Soundness::Emptied(file) => (FindingKind::Emptied, "it has no bytes".to_owned(), file),
            Soundness::Damaged { len, file } => match known {
                Some(known) if len < known => {
                    let found = format!("it has {len} bytes of {known}");
                    (FindingKind::Truncated, found, file)
                }
                _ => {
                    let found = format!("its {len} bytes do not match its digest");
                    (FindingKind::Damaged, found, file)
                }
            },
        };
        Some(self.set_aside(digest, kind, found, &file).await)
    }

    async fn set_aside(
        &self,
        digest: &Digest,
        kind: FindingKind,
        found: String,
        file: &Faulty,
    ) -> Finding {
        self.metrics.cache.damaged.inc();
        let done = match self.store.set_aside(digest, file).await {
            Ok(SetAside::Moved(path)) => format!(
                "moved to {}; it is fetched again at its next use",
                path.display()
            ),
            Ok(SetAside::Removed) => {
                "removed, too large to be kept; it is fetched again at its next use".to_owned()
            }
            Ok(SetAside::Gone) => "it was removed or replaced meanwhile".to_owned(),
            Err(error) => format!("it is still there: {error}"),
        };
        self.memory.forget_bytes(digest);
        tracing::warn!(%digest, kind = kind.as_str(), found, done, "a stored blob is damaged");
        finding(digest, kind, found, done)
    }
}

fn closed(digest: &Digest, error: &std::io::Error) -> Finding {
    tracing::warn!(%digest, %error, "a stored blob cannot be opened");
    let done = "left alone; it is fetched again, and replaced, at its next use".to_owned();
    finding(digest, FindingKind::Unreadable, error.to_string(), done)
}

fn finding(digest: &Digest, kind: FindingKind, found: String, done: String) -> Finding {
    Finding {
        kind,
        place: digest.to_string(),
        digest: Some(digest.to_string()),
        found,
        done,
    }
}

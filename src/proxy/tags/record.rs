//! What is known of a tag.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::oci::{Digest, MediaType};

use super::freshness;
use super::whole::Whole;

/// The record `_tags/<tag>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TagRecord {
    /// Where the tag points.
    pub(super) digest: Digest,
    /// Where it pointed before, for as long as no platform of `digest` is here whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Digest>,
    /// Type of the manifest.
    pub(super) media_type: MediaType,
    /// Its bytes.
    pub(super) size: u64,
    /// The upstream's entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// When `digest` was first seen.
    pub(super) fetched: Timestamp,
    /// When the upstream last said that the tag points there.
    pub(super) validated: Timestamp,
}

/// A record in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: TagRecord,
    /// `validated` as it was last sent to the disk.
    saved: Timestamp,
    /// When the question was asked that this answers; `None`: before the restart.
    pub(super) asked: Option<Instant>,
    /// Whether what `record.digest` names is here.
    pub(super) whole: Arc<Whole>,
    /// The same of `record.previous`.
    pub(super) previous_whole: Arc<Whole>,
}

/// A validation that says nothing new is written this often at most: with a ttl of zero there is one at every use.
const SAVE_EVERY: Duration = Duration::from_secs(5);

impl Entry {
    pub(super) fn from_disk(record: TagRecord) -> Self {
        let saved = record.validated;
        Self {
            record,
            saved,
            asked: None,
            whole: Arc::default(),
            previous_whole: Arc::default(),
        }
    }

    /// The entry that follows `self` in memory, and whether it has to be written.
    pub(super) fn followed_by(
        old: Option<&Self>,
        record: TagRecord,
        asked: Instant,
    ) -> (Self, bool) {
        let unchanged = old.filter(|old| {
            let times_aside = TagRecord {
                fetched: old.record.fetched,
                validated: old.record.validated,
                ..record.clone()
            };
            times_aside == old.record && freshness::within(old.saved, record.validated, SAVE_EVERY)
        });
        let whole = |digest: Option<&Digest>| {
            old.and_then(|old| old.wholeness(digest?))
                .unwrap_or_default()
        };
        let entry = Self {
            saved: unchanged.map_or(record.validated, |old| old.saved),
            asked: Some(asked),
            whole: whole(Some(&record.digest)),
            previous_whole: whole(record.previous.as_ref()),
            record,
        };
        (entry, unchanged.is_none())
    }

    /// What is known of the blobs of `digest`.
    fn wholeness(&self, digest: &Digest) -> Option<Arc<Whole>> {
        if self.record.digest == *digest {
            Some(Arc::clone(&self.whole))
        } else if self.record.previous.as_ref() == Some(digest) {
            Some(Arc::clone(&self.previous_whole))
        } else {
            None
        }
    }
}

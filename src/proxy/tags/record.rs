//! What is known of a tag.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::TagPolicy;
use crate::oci::{Digest, MediaType};

use super::StaleReason;
use super::freshness::{self, Freshness, Withdrawn};
use super::whole::Whole;

/// The record `_tags/<tag>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) struct TagRecord {
    /// Where the tag points.
    pub(in crate::proxy) digest: Digest,
    /// Where it pointed before, for as long as no platform of `digest` is here whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) previous: Option<Digest>,
    /// Type of the manifest.
    pub(in crate::proxy) media_type: MediaType,
    /// Its bytes.
    pub(in crate::proxy) size: u64,
    /// The upstream's entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) etag: Option<String>,
    /// When `digest` was first seen.
    pub(in crate::proxy) fetched: Timestamp,
    /// When the upstream last said that the tag points there.
    pub(in crate::proxy) validated: Timestamp,
    /// What it has said since, if it has: an outage that follows is no reason to serve what was taken down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::proxy) withdrawn: Option<Withdrawn>,
    /// Whether an operator wants the upstream asked at the next use, however young `validated` is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::proxy) ask: bool,
}

impl TagRecord {
    /// Judges where the tag is known to point.
    pub(in crate::proxy) fn judged(&self, policy: &TagPolicy, now: Timestamp) -> Freshness {
        if self.ask {
            return Freshness::Old;
        }
        freshness::judge(policy, self.validated, now)
    }
}

impl TagRecord {
    /// Why the tag is served stale, where the present reason is this one.
    pub(super) fn reason(&self, present: StaleReason) -> StaleReason {
        Withdrawn::reason(self.withdrawn, present)
    }
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

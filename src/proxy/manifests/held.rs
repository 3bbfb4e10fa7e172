//! A manifest in hand, and how it is read from disk.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use crate::oci::{Digest, MediaType};
use crate::store::RefKind;

use super::{CacheOutcome, Key, ManifestAnswer, Manifests};

/// Bytes that hash to their digest, and that belong to the repository they are held for.
#[derive(Debug)]
pub(in crate::proxy) struct Held {
    pub(in crate::proxy) bytes: Bytes,
    pub(in crate::proxy) media_type: MediaType,
    pub(in crate::proxy) digest: Digest,
    /// Set once bytes and proof are durable.
    pub(super) stored: OnceCell<()>,
}

/// The record `_manifests/<digest>`.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::proxy) struct ManifestRecord {
    pub(in crate::proxy) media_type: MediaType,
    pub(in crate::proxy) size: u64,
}

/// Memory of an entry besides its bytes, roughly.
const OVERHEAD: usize = 512;

impl Held {
    pub(super) fn new(bytes: Bytes, media_type: MediaType, digest: Digest) -> Self {
        Self {
            bytes,
            media_type,
            digest,
            stored: OnceCell::new(),
        }
    }

    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.bytes.len().saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
    }

    /// What the client gets.
    pub(in crate::proxy) fn answer(
        &self,
        outcome: CacheOutcome,
        warning: Option<String>,
    ) -> ManifestAnswer {
        ManifestAnswer {
            bytes: self.bytes.clone(),
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            outcome,
            warning,
        }
    }
}

impl ManifestRecord {
    pub(super) fn of(held: &Held) -> Self {
        Self {
            media_type: held.media_type.clone(),
            size: held.bytes.len() as u64,
        }
    }

    pub(super) fn to_json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl Manifests {
    /// Reads a manifest from disk: its proof, then its bytes, compared with the digest again.
    pub(super) async fn load(&self, key: &Key) -> Option<Held> {
        let place = &key.place;
        let record = place.key(RefKind::Manifest(key.digest.clone()));
        let record = self.ctx.record(&record).await?;
        let record: ManifestRecord = match serde_json::from_slice(&record) {
            Ok(record) => record,
            Err(error) => {
                warn!(upstream = %place.upstream, repository = %place.repository, digest = %key.digest, %error,
                    "a manifest's record is damaged and counts as missing");
                return None;
            }
        };
        let Some(bytes) = self.verified_bytes(&key.digest).await else {
            debug!(upstream = %place.upstream, repository = %place.repository, digest = %key.digest,
                "a manifest's bytes are gone, its record stands");
            return None;
        };
        let held = Held::new(bytes, record.media_type, key.digest.clone());
        // Cannot fail: the cell is new.
        let _ = held.stored.set(());
        Some(held)
    }

    /// The stored bytes behind a digest, whoever brought them. Bytes that have turned out wrong are thrown away.
    pub(super) async fn verified_bytes(&self, digest: &Digest) -> Option<Bytes> {
        let bytes = match self.ctx.records.read_blob(digest).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                warn!(%digest, %error, "a stored manifest cannot be read and counts as missing");
                return None;
            }
        };
        if Digest::of(digest.algorithm(), &bytes).as_ref() == Some(digest) {
            return Some(bytes);
        }
        warn!(%digest, "a stored manifest does not match its digest any more and is thrown away");
        if let Err(error) = self
            .ctx
            .records
            .discard_blob(digest, bytes.len() as u64)
            .await
        {
            warn!(%digest, %error, "a damaged manifest cannot be removed");
        }
        None
    }
}

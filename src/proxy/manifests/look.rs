//! What memory and disk have of a manifest, before its upstream is asked.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::oci::Digest;

use super::{Error, Held, Key, Manifests, Place};

/// What a look has found.
#[derive(Debug, Clone)]
pub(in crate::proxy) enum Looked {
    /// The manifest, which the repository was shown to have.
    Held(Arc<Held>),
    /// Its bytes, which another repository brought.
    Bytes(Bytes),
    /// Nothing that can be used.
    Nothing,
}

impl Manifests {
    /// Looks for a manifest in memory and on disk. Asks nobody; as slow as the disk, but fails at `deadline`.
    pub(in crate::proxy) async fn look(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Looked, Error> {
        let key = Key::new(place, digest);
        if let Some(held) = self.hot.get(&key) {
            return Ok(Looked::Held(held));
        }
        let look = || {
            let (this, key) = (Arc::clone(self), key.clone());
            async move { Ok(this.look_on_disk(&key).await) }
        };
        let (looked, _) = self.looks.run(&key, deadline, look).await?;
        Ok(looked)
    }

    async fn look_on_disk(self: &Arc<Self>, key: &Key) -> Looked {
        if let Some(held) = self.held(&key.place, &key.digest).await {
            return Looked::Held(held);
        }
        // Bytes alone need the upstream's word, which is not to be had offline, or is known already.
        if self.ctx.offline || !matches!(self.absence(key), Ok(None)) {
            return Looked::Nothing;
        }
        let bytes = self.verified_bytes(&key.digest).await;
        bytes.map_or(Looked::Nothing, Looked::Bytes)
    }

    /// What the upstream said a moment ago of a manifest that it does not have.
    pub(super) fn absence(&self, key: &Key) -> Result<Option<String>, Error> {
        let policy = &self.ctx.remote(&key.place.upstream)?.policy;
        Ok(self.absent.get(key, self.ctx.now(), policy.negative_ttl))
    }
}

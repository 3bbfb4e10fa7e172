//! Manifests by digest: in memory, on disk, or asked for once.
//!
//! Owns the records `_manifests/<digest>`, which prove that a repository has a manifest, and the memory of hot ones.
//! Never serves bytes that were not compared with their digest, and never under a repository that was not shown to have
//! them. Knows nothing of tags. Imports what `proxy` imports.

mod complete;
mod held;
mod look;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tracing::warn;

use crate::oci::{Digest, ManifestInfo, Reference};
use crate::store::RefKind;
use crate::upstream::{self, Call};

use super::context::Context;
use super::recent::Recent;
use super::singles::{Role, Singles, Subject};
use super::{BypassReason, CacheOutcome, Error, ManifestAnswer, Place, What};

pub(super) use complete::EMPTY;
pub(super) use held::{Held, ManifestRecord};
pub(super) use look::Looked;

/// Manifests of all repositories.
pub(super) struct Manifests {
    ctx: Arc<Context>,
    hot: Cache<Key, Arc<Held>>,
    absent: Recent<Key, String>,
    loads: Singles<Key, Option<Arc<Held>>>,
    looks: Singles<Key, Looked>,
    fetches: Singles<Key, Found>,
}

/// A manifest of a repository: what is known of it under one repository says nothing about another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Place,
    digest: Digest,
}

/// A manifest and what it took to have it.
pub(super) type Found = (Arc<Held>, CacheOutcome);

/// Most bytes of hot manifests.
const HOT_BYTES: u64 = 32 * 1024 * 1024;

impl Manifests {
    /// Manifests on the disk and of the upstreams that `ctx` knows.
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        let hot = Cache::builder()
            .max_capacity(HOT_BYTES)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, held: &Arc<Held>| held.weight())
            .build();
        Self {
            hot,
            absent: Recent::new(),
            loads: Singles::new(ctx.tasks.clone()),
            looks: Singles::new(ctx.tasks.clone()),
            fetches: Singles::new(ctx.tasks.clone()),
            ctx,
        }
    }

    /// The manifest `digest` of a repository.
    pub(super) async fn by_digest(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<ManifestAnswer, Error> {
        let (held, outcome) = self.fetch(place, digest, call).await?;
        Ok(held.answer(outcome, None))
    }

    /// The manifest, asked of the upstream where it is not held.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<Found, Error> {
        if !digest.is_verifiable() {
            return self.pass_through(place, digest, call).await;
        }
        let looked = self.look(place, digest, call.deadline).await?;
        self.fetch_after(looked, place, digest, call).await
    }

    /// The same after a look, with nothing left to do but to ask.
    pub(super) async fn fetch_after(
        self: &Arc<Self>,
        looked: Looked,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<Found, Error> {
        let bytes = match looked {
            Looked::Held(held) => return Ok((held, CacheOutcome::Hit)),
            Looked::Bytes(bytes) => Some(bytes),
            Looked::Nothing => None,
        };
        let key = Key::new(place, digest);
        let find = || Arc::clone(self).find(key.clone(), bytes.clone(), call.clone());
        let ((held, outcome), role) = self.fetches.run(&key, call.deadline, find).await?;
        let joined = role == Role::Joiner && outcome == CacheOutcome::Miss;
        if joined {
            self.ctx.metrics.flight.collapsed.inc();
        }
        Ok((
            held,
            if joined {
                CacheOutcome::Collapsed
            } else {
                outcome
            },
        ))
    }

    /// The manifest, if it is in memory.
    pub(super) fn in_memory(&self, place: &Place, digest: &Digest) -> Option<Arc<Held>> {
        self.hot.get(&Key::new(place, digest))
    }

    /// The manifest, if it is in memory or on disk with its proof. Asks nobody.
    pub(super) async fn held(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
    ) -> Option<Arc<Held>> {
        let key = Key::new(place, digest);
        if let Some(held) = self.hot.get(&key) {
            return Some(held);
        }
        let load = || {
            let (this, key) = (Arc::clone(self), key.clone());
            async move {
                let loaded = this.load(&key).await;
                Ok(loaded.map(|held| this.heat(key, held)))
            }
        };
        let loaded = self.loads.run(&key, self.ctx.own_deadline(), load).await;
        loaded.ok().and_then(|(held, _)| held)
    }

    /// The same, without a place in memory for what is only looked through.
    pub(super) async fn peek(&self, place: &Place, digest: &Digest) -> Option<Arc<Held>> {
        let key = Key::new(place, digest);
        match self.hot.get(&key) {
            Some(held) => Some(held),
            None => self.load(&key).await.map(Arc::new),
        }
    }

    /// Gives up what memory knows of a manifest, for what the disk says.
    pub(super) fn forget(&self, place: &Place, digest: &Digest) {
        self.hot.invalidate(&Key::new(place, digest));
    }

    /// The same under all repositories: its bytes are gone.
    pub(super) fn forget_bytes(&self, digest: &Digest) {
        for (key, _) in &self.hot {
            if key.digest == *digest {
                self.hot.invalidate(&*key);
            }
        }
    }

    /// Takes in a manifest that the repository's upstream has just delivered: in memory now, on disk behind the answer.
    pub(super) async fn keep(
        self: &Arc<Self>,
        place: &Place,
        manifest: upstream::Manifest,
    ) -> Arc<Held> {
        let key = Key::new(place, &manifest.digest);
        let held = Held::new(manifest.bytes, manifest.media_type, manifest.digest);
        if !key.digest.is_verifiable() {
            return Arc::new(held);
        }
        self.absent.forget(&key);
        let held = self.heat(key.clone(), held);
        let (this, storing) = (Arc::clone(self), Arc::clone(&held));
        let store = async move {
            if let Err(error) = this.store(&key.place, &storing).await {
                warn!(upstream = %key.place.upstream, repository = %key.place.repository, digest = %key.digest, %error,
                    "a manifest is not stored");
            }
        };
        self.ctx.write_behind(store).await;
        held
    }

    /// Makes a manifest durable, unless it is: its bytes first, then the record that proves it.
    pub(super) async fn store(&self, place: &Place, held: &Held) -> io::Result<()> {
        let write = || async {
            let records = &self.ctx.records;
            records.put_blob(held.bytes.clone(), &held.digest).await?;
            let key = place.key(RefKind::Manifest(held.digest.clone()));
            records.put(&key, ManifestRecord::of(held).to_json()?).await
        };
        held.stored.get_or_try_init(write).await?;
        Ok(())
    }

    /// The work of one fetch, after a look that has found `bytes` at most.
    async fn find(
        self: Arc<Self>,
        key: Key,
        bytes: Option<Bytes>,
        call: Call,
    ) -> Result<Found, Error> {
        // Since the look, an earlier fetch may have brought it.
        if let Some(held) = self.hot.get(&key) {
            return Ok((held, CacheOutcome::Hit));
        }
        let what = What::Manifest;
        if self.ctx.offline {
            return Err(Error::NotCached { what });
        }
        if let Some(message) = self.absence(&key)? {
            return Err(Error::NotFound { what, message });
        }
        let adopted = match bytes {
            Some(bytes) => self.adopt(&key, bytes, &call).await,
            None => Ok(None),
        };
        let asked = match adopted {
            Ok(None) => self.ask(&key, &call).await,
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        asked.map_err(|error| {
            let error = Error::from_upstream(what, error);
            if let Error::NotFound { message, .. } = &error {
                self.absent.put(key, self.ctx.now(), message.clone());
            }
            error
        })
    }

    /// Bytes that another repository brought need only the word of this one's upstream, which `HEAD` gives for free.
    async fn adopt(
        self: &Arc<Self>,
        key: &Key,
        bytes: Bytes,
        call: &Call,
    ) -> Result<Option<Found>, upstream::Error> {
        let Some(remote) = self.ctx.remotes.get(&key.place.upstream) else {
            return Ok(None);
        };
        let reference = Reference::Digest(key.digest.clone());
        let answer = remote
            .registry
            .head_manifest(&key.place.repository, &reference, call)
            .await?;
        if let Some(manifest) = answer.body {
            let delivered = manifest.digest == key.digest;
            return Ok(if delivered {
                Some((self.keep(&key.place, manifest).await, CacheOutcome::Miss))
            } else {
                None
            });
        }
        let Ok(info) = ManifestInfo::parse(Some(&answer.media_type), &bytes) else {
            return Ok(None);
        };
        if answer.digest != key.digest {
            return Ok(None);
        }
        let manifest = upstream::Manifest {
            bytes,
            media_type: info.media_type,
            digest: answer.digest,
            etag: answer.etag,
        };
        let held = self.keep(&key.place, manifest).await;
        Ok(Some((held, CacheOutcome::Revalidated)))
    }

    async fn ask(self: &Arc<Self>, key: &Key, call: &Call) -> Result<Found, upstream::Error> {
        let manifest = self.get(&key.place, &key.digest, call).await?;
        if manifest.digest != key.digest {
            return Err(upstream::Error::Corrupt {
                message: format!(
                    "{} sent a manifest that is {} instead of {}",
                    key.place.upstream, manifest.digest, key.digest
                ),
            });
        }
        Ok((self.keep(&key.place, manifest).await, CacheOutcome::Miss))
    }

    async fn get(
        &self,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<upstream::Manifest, upstream::Error> {
        let Some(remote) = self.ctx.remotes.get(&place.upstream) else {
            return Err(upstream::Error::Offline);
        };
        let reference = Reference::Digest(digest.clone());
        remote
            .registry
            .get_manifest(&place.repository, &reference, call)
            .await
    }

    /// What cannot be compared with its digest is never kept.
    async fn pass_through(
        &self,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<Found, Error> {
        let what = What::Manifest;
        if self.ctx.offline {
            return Err(Error::NotCached { what });
        }
        let manifest = self
            .get(place, digest, call)
            .await
            .map_err(|error| Error::from_upstream(what, error))?;
        let reason = BypassReason::Unverifiable;
        self.ctx.metrics.cache.bypassed(reason.as_str());
        let held = Held::new(manifest.bytes, manifest.media_type, digest.clone());
        Ok((Arc::new(held), CacheOutcome::Bypass(reason)))
    }

    /// Puts a manifest in memory, unless it is there.
    fn heat(&self, key: Key, held: Held) -> Arc<Held> {
        self.hot
            .entry(key)
            .or_insert_with(|| Arc::new(held))
            .into_value()
    }
}

impl Subject for Key {
    fn awaited(&self) -> &str {
        self.place.upstream.as_str()
    }
}

impl Key {
    fn new(place: &Place, digest: &Digest) -> Self {
        Self {
            place: place.clone(),
            digest: digest.clone(),
        }
    }
}

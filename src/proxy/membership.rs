//! Which content a repository was shown to have (DESIGN 7).
//!
//! Naming is not owning: a manifest that names a digest proves nothing. A proof is a record, written after the
//! repository's own upstream delivered the content or said that it has it. One look-up per check, never a scan.

use std::fmt;
use std::io;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::oci::Digest;
use crate::store::RefKind;
use crate::upstream::Call;

use super::context::Context;
use super::recent::Recent;
use super::singles::{Singles, Subject};
use super::{Error, Place, What};

/// Proofs of all repositories.
pub(super) struct Membership {
    ctx: Arc<Context>,
    hot: Cache<Key, OnRecord>,
    absent: Recent<Key, String>,
    proving: Singles<Key, Proof>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").finish_non_exhaustive()
    }
}

/// What an upstream said of content that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    /// Its size in bytes.
    pub(super) len: u64,
}

/// A record of membership, as far as it matters here. That of a manifest says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct OnRecord {
    /// The size of what was delivered, in bytes; `None` where the upstream has only said that it has it, since what it says
    /// of the size is nobody's to rely on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
}

type Key = (Place, Digest);

impl Subject for Key {
    fn awaited(&self) -> &str {
        self.0.upstream.as_str()
    }
}

/// Most proofs in memory.
const HOT: u64 = 65_536;

impl Membership {
    /// The proofs on the disk that `ctx` knows.
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self {
            hot: Cache::builder()
                .max_capacity(HOT)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            absent: Recent::new(),
            proving: Singles::new(ctx.tasks.clone()),
            ctx,
        }
    }

    /// Whether the repository was shown to have `digest`, as a blob or as a manifest. Asks nobody.
    pub(super) async fn is_proven(&self, place: &Place, digest: &Digest) -> bool {
        self.on_record(place, digest).await.is_some()
    }

    /// The proof that the repository has `digest`, as a blob or as a manifest. Asks nobody.
    pub(super) async fn on_record(&self, place: &Place, digest: &Digest) -> Option<OnRecord> {
        let key = (place.clone(), digest.clone());
        if let Some(known) = self.hot.get(&key) {
            return Some(known);
        }
        let proofs = [
            place.key(RefKind::Blob(digest.clone())),
            place.key(RefKind::Manifest(digest.clone())),
        ];
        let record = self.ctx.first_record(&proofs).await?;
        // What cannot be understood still is a proof: its name says all that one has to.
        let known: OnRecord = serde_json::from_slice(&record).unwrap_or_default();
        self.hot.insert(key, known);
        Some(known)
    }

    /// The same as [`Membership::on_record`], as far as memory knows.
    pub(super) fn in_memory(&self, place: &Place, digest: &Digest) -> Option<OnRecord> {
        self.hot.get(&(place.clone(), digest.clone()))
    }

    /// Gives up what memory knows of a proof, for what the disk says.
    pub(super) fn forget(&self, place: &Place, digest: &Digest) {
        self.hot.invalidate(&(place.clone(), digest.clone()));
    }

    /// Writes the proof that the repository has `digest`, after its upstream delivered it or said so. Durable on
    /// return. Where the content is stored too, it is durable before. `size` is that of bytes that were verified.
    pub(super) async fn record(
        &self,
        place: &Place,
        digest: &Digest,
        size: Option<u64>,
    ) -> io::Result<()> {
        let key = (place.clone(), digest.clone());
        let known = OnRecord { size };
        self.absent.forget(&key);
        self.hot.insert(key, known);
        let proof = place.key(RefKind::Blob(digest.clone()));
        let record = serde_json::to_vec(&known)?;
        self.ctx.records.put(&proof, record).await
    }

    /// Throws away stored content of `len` bytes that cannot be what was delivered. The proofs stand.
    pub(super) async fn discard(&self, digest: &Digest, len: u64) -> io::Result<()> {
        self.ctx.records.discard_blob(digest, len).await
    }

    /// Asks the repository's upstream whether it has `digest`, and keeps the proof.
    ///
    /// Fails with [`Error::NotFound`] where it has not, with [`Error::NotCached`] offline, and with
    /// [`Error::Upstream`] while it cannot answer.
    pub(super) async fn prove(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<Proof, Error> {
        let key = (place.clone(), digest.clone());
        let ask = || Arc::clone(self).ask(key.clone(), call.clone());
        let (proof, _) = self.proving.run(&key, call.deadline, ask).await?;
        Ok(proof)
    }

    async fn ask(self: Arc<Self>, key: Key, call: Call) -> Result<Proof, Error> {
        let (place, digest) = &key;
        let what = What::Blob;
        if self.ctx.offline {
            return Err(Error::NotCached { what });
        }
        let remote = self.ctx.remote(&place.upstream)?;
        let ttl = remote.policy.negative_ttl;
        if let Some(message) = self.absent.get(&key, self.ctx.now(), ttl) {
            return Err(Error::NotFound { what, message });
        }
        let asked = remote
            .registry
            .head_blob(&place.repository, digest, &call)
            .await;
        match asked {
            Ok(head) => {
                // What cannot be verified is never stored, so its proof would be of no use.
                if digest.is_verifiable() {
                    self.record_behind(key).await;
                }
                Ok(Proof { len: head.len })
            }
            Err(error) => {
                let error = Error::from_upstream(what, error);
                if let Error::NotFound { message, .. } = &error {
                    self.absent.put(key, self.ctx.now(), message.clone());
                }
                Err(error)
            }
        }
    }

    /// The answer need not wait for the record: what is lost is one `HEAD`.
    async fn record_behind(self: &Arc<Self>, key: Key) {
        self.hot.insert(key.clone(), OnRecord::default());
        let this = Arc::clone(self);
        let write = async move {
            let (place, digest) = &key;
            if let Err(error) = this.record(place, digest, None).await {
                warn!(upstream = %place.upstream, repository = %place.repository, %digest, %error,
                    "a proof of membership is not stored");
            }
        };
        self.ctx.write_behind(write).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing::{
        SECOND, World, call, client, denied, image, place, policy, turns, ubuntu, unavailable,
    };

    fn blob() -> Digest {
        Digest::sha256(b"a layer")
    }

    fn has(world: &World, place: &Place) {
        let key = (place.repository.clone(), blob());
        world.registry.blobs.lock().insert(key);
    }

    #[tokio::test]
    async fn a_proof_counts_for_its_repository_alone_and_survives_a_restart() {
        let world = World::new();
        assert!(!world.membership.is_proven(&ubuntu(), &blob()).await);
        let recorded = world.membership.record(&ubuntu(), &blob(), Some(7)).await;
        recorded.unwrap();
        let world = world.restarted(&policy());
        let known = world.membership.on_record(&ubuntu(), &blob()).await;
        assert_eq!(known, Some(OnRecord { size: Some(7) }));
        for other in [
            place("ghcr.io", "library/ubuntu"),
            place("docker.io", "acme/web"),
        ] {
            assert!(
                !world.membership.is_proven(&other, &blob()).await,
                "{other:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_cannot_be_verified_is_asked_for_each_time_and_leaves_no_record() {
        let world = World::new();
        let digests = [
            "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            format!("long:{}", "x".repeat(300)),
        ];
        for digest in digests {
            let digest: Digest = digest.parse().unwrap();
            let key = (ubuntu().repository, digest.clone());
            world.registry.blobs.lock().insert(key);
            for _ in 0..2 {
                let proof = world.membership.prove(&ubuntu(), &digest, &call()).await;
                proof.unwrap();
                world.settled().await;
                assert_eq!(world.registry.asked().len(), 1);
            }
            assert!(!world.membership.is_proven(&ubuntu(), &digest).await);
        }
        assert_eq!(world.records.len(), 0);
    }

    #[tokio::test]
    async fn a_delivered_manifest_is_a_proof_of_itself_and_of_nothing_it_names() {
        let world = World::new();
        let digest = world.registry.push_untagged(&ubuntu(), &image("a"));
        let manifests = &world.manifests;
        manifests
            .by_digest(&ubuntu(), &digest, &call())
            .await
            .unwrap();
        world.settled().await;
        assert!(world.membership.is_proven(&ubuntu(), &digest).await);
        let layer = Digest::sha256(b"a layer");
        assert!(image("a").contains(layer.as_str()));
        assert!(!world.membership.is_proven(&ubuntu(), &layer).await);
    }

    #[tokio::test]
    async fn one_head_proves_for_ever() {
        let world = World::new();
        has(&world, &ubuntu());
        let proof = world.membership.prove(&ubuntu(), &blob(), &call()).await;
        assert_eq!(proof.unwrap().len, 9);
        assert!(world.membership.is_proven(&ubuntu(), &blob()).await);
        world.settled().await;
        let world = world.restarted(&policy());
        assert!(world.membership.is_proven(&ubuntu(), &blob()).await);
        assert_eq!(world.registry.asked().len(), 1);
    }

    #[tokio::test]
    async fn requests_at_once_share_one_proof() {
        let world = World::new();
        has(&world, &ubuntu());
        world.registry.hold();
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let membership = Arc::clone(&world.membership);
                client(async move { membership.prove(&ubuntu(), &blob(), &call()).await })
            })
            .collect();
        turns().await;
        world.registry.release();
        for client in clients {
            assert!(client.await.unwrap().is_ok());
        }
        assert_eq!(world.registry.asked().len(), 1);
    }

    #[tokio::test]
    async fn an_absence_is_believed_for_negative_ttl() {
        let world = World::new();
        for _ in 0..2 {
            let failure = world.membership.prove(&ubuntu(), &blob(), &call()).await;
            assert!(matches!(
                failure,
                Err(Error::NotFound {
                    what: What::Blob,
                    ..
                })
            ));
        }
        assert_eq!(world.registry.asked().len(), 1);
        has(&world, &ubuntu());
        world.clock.advance(10 * SECOND);
        assert!(
            world
                .membership
                .prove(&ubuntu(), &blob(), &call())
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn an_upstream_that_cannot_answer_proves_nothing_and_denies_nothing() {
        for error in [unavailable(), denied()] {
            let world = World::new();
            world.registry.fail_all(&error);
            let failure = world.membership.prove(&ubuntu(), &blob(), &call()).await;
            assert!(matches!(failure, Err(Error::Upstream(_))));
            assert!(!world.membership.is_proven(&ubuntu(), &blob()).await);
            world.registry.mend();
            has(&world, &ubuntu());
            assert!(
                world
                    .membership
                    .prove(&ubuntu(), &blob(), &call())
                    .await
                    .is_ok()
            );
        }
    }

    #[tokio::test]
    async fn offline_there_is_no_proof_to_be_had() {
        let world = World::new();
        has(&world, &ubuntu());
        let world = world.restarted_offline();
        let failure = world.membership.prove(&ubuntu(), &blob(), &call()).await;
        assert!(matches!(
            failure,
            Err(Error::NotCached { what: What::Blob })
        ));
        assert!(world.registry.asked().is_empty());
    }
}

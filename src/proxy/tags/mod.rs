//! Tags: where they point, how long that holds, and what is served when the upstream cannot say.
//!
//! Owns the records `_tags/<tag>` and the memory of hot ones. A tag's record names only a manifest that is stored.
//! Holds no manifest: that is `manifests`. Imports what `proxy` imports.

mod ask;
mod hurry;
mod late;
mod newest;
mod record;
mod save;
mod terms;
#[cfg(test)]
mod tests;
mod whole;

use std::sync::Arc;

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::timeout;
use tracing::warn;

use crate::config::TagPolicy;
use crate::oci::Tag;
use crate::store::{RefKey, RefKind};
use crate::upstream::Call;

use super::context::Context;
use super::freshness::{self, Freshness};
use super::manifests::{Found, Held, Manifests};
use super::recent::Recent;
use super::singles::{Role, Singles, Subject};
use super::{CacheOutcome, Error, ManifestAnswer, Place, StaleReason, What};

use late::Late;
use record::Entry;
use save::Saver;

pub(super) use record::TagRecord;
pub(super) use terms::Terms;

/// Tags of all repositories.
pub(super) struct Tags {
    ctx: Arc<Context>,
    manifests: Arc<Manifests>,
    hot: Cache<TagKey, Arc<Entry>>,
    /// Upstreams' refusals to say: absences of what is not stored, failed revalidations of what is.
    failures: Recent<TagKey, Error>,
    questions: Singles<TagKey, Found>,
    /// Those of who insists, and waits as long as it takes: a client with an old answer joins none of them.
    insisting: Singles<TagKey, Found>,
    late: Late,
    saver: Arc<Saver>,
}

/// A tag of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TagKey {
    place: Place,
    tag: Tag,
}

/// Most tags in memory, at well under a kilobyte each.
const HOT: u64 = 32_768;

/// How long the disk is searched for an old answer, whose client has waited long enough.
const STALE_TIME: Duration = Duration::from_secs(2);

impl Tags {
    /// Tags on the disk and of the upstreams that `ctx` knows.
    pub(super) fn new(ctx: Arc<Context>, manifests: Arc<Manifests>) -> Self {
        Self {
            hot: Cache::builder()
                .max_capacity(HOT)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            failures: Recent::new(),
            questions: Singles::new(ctx.tasks.clone()),
            insisting: Singles::new(ctx.tasks.clone()),
            late: Late::default(),
            saver: Arc::new(Saver::new(Arc::clone(&ctx), Arc::clone(&manifests))),
            ctx,
            manifests,
        }
    }

    /// The manifest that `tag` points at.
    pub(super) async fn manifest(
        self: &Arc<Self>,
        place: &Place,
        tag: &Tag,
        call: &Call,
    ) -> Result<ManifestAnswer, Error> {
        let key = TagKey::new(place, tag);
        if self.ctx.offline {
            return self.offline(&key).await;
        }
        let policy = &self.terms(&key)?.policy;
        if let Some(answer) = self.without_asking(&key, policy, call).await {
            return Ok(answer);
        }
        let resolve = || Arc::clone(self).resolve(key.clone(), call.clone(), false);
        match self.questions.run(&key, call.deadline, resolve).await {
            Ok(((held, CacheOutcome::Miss), Role::Joiner)) => {
                self.ctx.metrics.flight.collapsed.inc();
                Ok(held.answer(CacheOutcome::Collapsed, None))
            }
            Ok(((held, outcome), _)) => Ok(held.answer(outcome, None)),
            Err(error) => {
                let stale = self.in_spite_of(&key, policy, &error).await;
                stale.ok_or(error)
            }
        }
    }

    /// Gives up what memory knows of the tag, for what the disk says.
    pub(super) fn forget(&self, place: &Place, tag: &Tag) {
        let key = TagKey::new(place, tag);
        self.hot.invalidate(&key);
        self.failures.forget(&key);
    }

    /// An answer that needs no upstream, or none before the client has it.
    async fn without_asking(
        self: &Arc<Self>,
        key: &TagKey,
        policy: &TagPolicy,
        call: &Call,
    ) -> Option<ManifestAnswer> {
        let entry = self.known(key).await?;
        let now = self.ctx.now();
        let freshness = entry.record.judged(policy, now);
        if freshness == Freshness::Fresh {
            let held = self
                .manifests
                .held(&key.place, &entry.record.digest)
                .await?;
            return Some(held.answer(CacheOutcome::Hit, None));
        }
        if let Some(failure) = self.failures.get(key, now, policy.negative_ttl)
            && let Some(answer) = self.in_spite_of(key, policy, &failure).await
        {
            return Some(answer);
        }
        if freshness != Freshness::Behind || entry.record.withdrawn.is_some() {
            return None;
        }
        let held = self
            .manifests
            .held(&key.place, &entry.record.digest)
            .await?;
        let behind = Call {
            deadline: self.ctx.own_deadline(),
            via: call.via.clone(),
        };
        self.questions.start(key, behind.deadline, || {
            Arc::clone(self).resolve(key.clone(), behind.clone(), false)
        });
        Some(self.stale(key, &held, StaleReason::Revalidating))
    }

    /// What is stored, where the policy prefers it to this failure. Of a disk that does not say in time, what memory has.
    async fn in_spite_of(
        self: &Arc<Self>,
        key: &TagKey,
        policy: &TagPolicy,
        failure: &Error,
    ) -> Option<ManifestAnswer> {
        let reason = freshness::stale_reason(failure)?;
        let entry = match self.hot.get(key) {
            Some(entry) => entry,
            None => timeout(STALE_TIME, self.known(key)).await.ok()??,
        };
        let reason = entry.record.reason(reason);
        if !freshness::may_serve(policy, reason, entry.record.validated, self.ctx.now()) {
            return None;
        }
        let newest = timeout(STALE_TIME, self.newest_complete(&key.place, &entry)).await;
        let held = newest.unwrap_or_else(|_elapsed| {
            warn!(upstream = %key.place.upstream, repository = %key.place.repository, tag = %key.tag,
                "the disk is too slow to say which image of a tag is whole: what is in memory is served");
            self.newest_in_memory(&key.place, &entry)
        })?;
        Some(self.stale(key, &held, reason))
    }

    /// Nothing is asked and nothing expires.
    async fn offline(self: &Arc<Self>, key: &TagKey) -> Result<ManifestAnswer, Error> {
        let missing = Error::NotCached {
            what: What::Manifest,
        };
        let Some(entry) = self.known(key).await else {
            return Err(missing);
        };
        let Some(held) = self.newest_complete(&key.place, &entry).await else {
            return Err(missing);
        };
        let fresh = self.terms(key).is_ok_and(|terms| {
            let judged = entry.record.judged(&terms.policy, self.ctx.now());
            judged == Freshness::Fresh
        });
        Ok(if fresh {
            held.answer(CacheOutcome::Hit, None)
        } else {
            self.stale(key, &held, StaleReason::Offline)
        })
    }

    fn terms(&self, key: &TagKey) -> Result<Terms, Error> {
        let remote = self.ctx.remote(&key.place.upstream)?;
        Ok(Terms::of(
            &remote.policy,
            &remote.rules,
            &key.place,
            &key.tag,
        ))
    }

    fn stale(&self, key: &TagKey, held: &Held, reason: StaleReason) -> ManifestAnswer {
        self.ctx
            .metrics
            .cache
            .stale_served(key.place.upstream.as_str(), reason.as_str());
        held.answer(
            CacheOutcome::Stale(reason),
            Some(freshness::warning(reason)),
        )
    }

    /// The newest manifest of the tag whose blobs are here too; where none is whole, the newest.
    async fn newest_complete(self: &Arc<Self>, place: &Place, entry: &Entry) -> Option<Arc<Held>> {
        let (record, now) = (&entry.record, self.ctx.now());
        let newest = self.manifests.held(place, &record.digest).await;
        let Some(previous) = &record.previous else {
            return newest;
        };
        if let Some(newest) = &newest
            && let check = self.manifests.complete(place, newest)
            && entry.whole.look(now, check).await
        {
            return Some(Arc::clone(newest));
        }
        let previous = self.manifests.held(place, previous).await;
        match (newest, previous) {
            (None, previous) => previous,
            (Some(newest), Some(previous)) => {
                let check = self.manifests.complete(place, &previous);
                let is_whole = entry.previous_whole.look(now, check).await;
                Some(if is_whole { previous } else { newest })
            }
            (newest, None) => newest,
        }
    }

    /// The newest manifest of the tag that needs no disk.
    fn newest_in_memory(&self, place: &Place, entry: &Entry) -> Option<Arc<Held>> {
        let record = &entry.record;
        let newest = self.manifests.in_memory(place, &record.digest);
        newest.or_else(|| self.manifests.in_memory(place, record.previous.as_ref()?))
    }

    /// What is known of the tag, in memory or on disk.
    async fn known(&self, key: &TagKey) -> Option<Arc<Entry>> {
        if let Some(entry) = self.hot.get(key) {
            return Some(entry);
        }
        let record = self.ctx.record(&key.record()).await?;
        match serde_json::from_slice::<TagRecord>(&record) {
            // Memory may know better by now: what is on disk never replaces it.
            Ok(record) => Some(
                self.hot
                    .entry(key.clone())
                    .or_insert_with(|| Arc::new(Entry::from_disk(record)))
                    .into_value(),
            ),
            Err(error) => {
                warn!(upstream = %key.place.upstream, repository = %key.place.repository, tag = %key.tag, %error,
                    "a tag's record is damaged and counts as missing");
                None
            }
        }
    }
}

impl Subject for TagKey {
    fn awaited(&self) -> &str {
        self.place.upstream.as_str()
    }
}

impl TagKey {
    fn new(place: &Place, tag: &Tag) -> Self {
        Self {
            place: place.clone(),
            tag: tag.clone(),
        }
    }

    fn record(&self) -> RefKey {
        self.place.key(RefKind::Tag(self.tag.clone()))
    }
}

//! Asking an upstream about a tag: one `GET` for a new one, one `HEAD` for a known one, and a `GET` only of a digest
//! that is not here.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::{Instrument as _, warn};

use crate::flight::ports::BoxFuture;
use crate::oci::Reference;
use crate::upstream::{self, Call, ManifestHead};

use super::record::{Entry, TagRecord};
use super::{
    CacheOutcome, Error, Found, Freshness, Held, StaleReason, TagKey, Tags, What, freshness,
};

type Asking = BoxFuture<'static, Result<ManifestHead, upstream::Error>>;

impl Tags {
    /// The work of one question. What another question found out meanwhile is taken as it is.
    pub(super) async fn resolve(self: Arc<Self>, key: TagKey, call: Call) -> Result<Found, Error> {
        let ttl = self.ctx.remote(&key.place.upstream)?.policy.negative_ttl;
        if let Some(absent @ Error::NotFound { .. }) = self.failures.get(&key, self.ctx.now(), ttl)
        {
            return Err(absent);
        }
        let known = self.known(&key).await;
        let asked = match &known {
            None => self.get(&key, None, &call).await,
            Some(entry) => self.again(&key, entry, &call).await,
        };
        match &asked {
            Ok(_) => self.failures.forget(&key),
            Err(error) => self.failed(&key, known.is_some(), error),
        }
        asked
    }

    /// Only what an upstream says with authority is remembered of a tag that is not stored; of one that is, any
    /// failure, so that the next requests have their stale answer at once.
    fn failed(&self, key: &TagKey, known: bool, error: &Error) {
        let could_be_stale = known && freshness::stale_reason(error).is_some();
        if could_be_stale {
            warn!(upstream = %key.place.upstream, repository = %key.place.repository, tag = %key.tag,
                reason = error.reason(), %error, "a tag could not be revalidated");
        }
        if could_be_stale || matches!(error, Error::NotFound { .. }) {
            self.failures
                .put(key.clone(), self.ctx.now(), error.clone());
        }
    }

    async fn again(
        self: &Arc<Self>,
        key: &TagKey,
        entry: &Arc<Entry>,
        call: &Call,
    ) -> Result<Found, Error> {
        let remote = self.ctx.remote(&key.place.upstream)?;
        let (record, policy) = (&entry.record, &remote.policy);
        let held = self.manifests.held(&key.place, &record.digest).await;
        let now = self.ctx.now();
        if let Some(held) = &held
            && freshness::judge(policy, record.validated, now) == Freshness::Fresh
        {
            return Ok((Arc::clone(held), CacheOutcome::Hit));
        }
        let has_fallback = held.is_some() || record.previous.is_some();
        let hurry = has_fallback
            && freshness::may_serve(policy, StaleReason::Unreachable, record.validated, now);
        let answer = self
            .ask(key, entry, call, hurry)
            .await
            .map_err(|error| Error::from_upstream(What::Manifest, error))?;
        self.apply(key, entry, answer, call).await
    }

    /// One `HEAD`; in a `hurry`, since an old answer would do, for a moment only.
    async fn ask(
        self: &Arc<Self>,
        key: &TagKey,
        entry: &Arc<Entry>,
        call: &Call,
        hurry: bool,
    ) -> Result<ManifestHead, upstream::Error> {
        let Some(remote) = self.ctx.remotes.get(&key.place.upstream) else {
            return Err(upstream::Error::Offline);
        };
        let registry = Arc::clone(&remote.registry);
        let (repository, tag) = (key.place.repository.clone(), key.tag.clone());
        let asked = call.clone();
        let mut asking: Asking = Box::pin(async move {
            let reference = Reference::Tag(tag);
            registry
                .head_manifest(&repository, &reference, &asked)
                .await
        });
        if !hurry {
            return asking.await;
        }
        if let Ok(answer) = timeout(self.ctx.revalidate_timeout, &mut asking).await {
            return answer;
        }
        self.follow(key, entry, asking, call);
        Err(upstream::Error::Unavailable {
            message: format!(
                "{} did not answer within revalidate_timeout ({:?})",
                key.place.upstream, self.ctx.revalidate_timeout
            ),
        })
    }

    /// Nobody waits for a late answer any more, but what it says still counts: else an upstream that is always a little
    /// too slow would never move a tag.
    fn follow(self: &Arc<Self>, key: &TagKey, before: &Arc<Entry>, asking: Asking, call: &Call) {
        let (this, key, before) = (Arc::clone(self), key.clone(), Arc::clone(before));
        let via = call.via.clone();
        let late = async move {
            let Ok(answer) = asking.await else { return };
            let current = this.known(&key).await;
            if !current.is_some_and(|current| Arc::ptr_eq(&current, &before)) {
                return;
            }
            let call = Call {
                deadline: this.ctx.own_deadline(),
                via,
            };
            if this.apply(&key, &before, answer, &call).await.is_ok() {
                this.failures.forget(&key);
            }
        };
        self.ctx.tasks.spawn_until_stop(late.in_current_span());
    }

    /// Takes in what a `HEAD` said. A manifest that is not here is fetched before the tag moves to it.
    async fn apply(
        self: &Arc<Self>,
        key: &TagKey,
        entry: &Entry,
        answer: ManifestHead,
        call: &Call,
    ) -> Result<Found, Error> {
        if let Some(manifest) = answer.body {
            let same = manifest.digest == entry.record.digest;
            let etag = manifest.etag.clone();
            let held = self.manifests.keep(&key.place, manifest).await;
            self.turn(key, Some(entry), &held, etag).await;
            let outcome = if same {
                CacheOutcome::Revalidated
            } else {
                CacheOutcome::Miss
            };
            return Ok((held, outcome));
        }
        if answer.digest == entry.record.digest
            && let Some(held) = self.manifests.held(&key.place, &answer.digest).await
        {
            self.turn(key, Some(entry), &held, answer.etag).await;
            return Ok((held, CacheOutcome::Revalidated));
        }
        if !answer.digest.is_verifiable() {
            return self.get(key, Some(entry), call).await;
        }
        match self.manifests.fetch(&key.place, &answer.digest, call).await {
            Ok((held, outcome)) => {
                self.turn(key, Some(entry), &held, answer.etag).await;
                let outcome = match outcome {
                    CacheOutcome::Hit => CacheOutcome::Revalidated,
                    fetched => fetched,
                };
                Ok((held, outcome))
            }
            // It moved on in between, or this upstream gives manifests by tag only.
            Err(Error::NotFound { .. }) => self.get(key, Some(entry), call).await,
            Err(error) => Err(error),
        }
    }

    /// One `GET` by tag.
    async fn get(
        self: &Arc<Self>,
        key: &TagKey,
        old: Option<&Entry>,
        call: &Call,
    ) -> Result<Found, Error> {
        let remote = self.ctx.remote(&key.place.upstream)?;
        let reference = Reference::Tag(key.tag.clone());
        let manifest = remote
            .registry
            .get_manifest(&key.place.repository, &reference, call)
            .await
            .map_err(|error| Error::from_upstream(What::Manifest, error))?;
        let etag = manifest.etag.clone();
        let held = self.manifests.keep(&key.place, manifest).await;
        self.turn(key, old, &held, etag).await;
        Ok((held, CacheOutcome::Miss))
    }

    /// Lets the tag point at `held`, as the upstream just said: in memory now, on disk behind the answer.
    async fn turn(
        &self,
        key: &TagKey,
        old: Option<&Entry>,
        held: &Arc<Held>,
        etag: Option<String>,
    ) {
        if !held.digest.is_verifiable() {
            return;
        }
        let now = self.ctx.now();
        let unmoved = old.filter(|old| old.record.digest == held.digest);
        let record = TagRecord {
            digest: held.digest.clone(),
            previous: self.previous(key, old, held).await,
            media_type: held.media_type.clone(),
            size: held.bytes.len() as u64,
            etag,
            fetched: unmoved.map_or(now, |old| old.record.fetched),
            validated: now,
        };
        let (entry, save) = Entry::followed_by(old, record.clone());
        self.hot.insert(key.clone(), Arc::new(entry));
        if save {
            self.saver.save(key.clone(), record, Arc::clone(held)).await;
        }
    }

    /// Where the tag is to be found while its new manifest is not whole: the newest that was.
    async fn previous(
        &self,
        key: &TagKey,
        old: Option<&Entry>,
        new: &Held,
    ) -> Option<crate::oci::Digest> {
        let old = &old?.record;
        let earlier = old.previous.clone();
        let previous = if old.digest == new.digest {
            earlier
        } else if earlier.is_none() {
            Some(old.digest.clone())
        } else {
            match self.manifests.peek(&key.place, &old.digest).await {
                Some(held) if self.manifests.complete(&key.place, &held).await => {
                    Some(old.digest.clone())
                }
                _ => earlier,
            }
        };
        let previous = previous.filter(|previous| *previous != new.digest)?;
        let whole = self.manifests.complete(&key.place, new).await;
        (!whole).then_some(previous)
    }
}

//! Asking an upstream about a tag: one `GET` for a new one, one `HEAD` for a known one, and a `GET` only of a digest
//! that is not here.

use std::future::Future;
use std::sync::Arc;

use moka::ops::compute::{CompResult, Op};
use tokio::time::Instant;
use tracing::{Instrument as _, warn};

use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, Reference};
use crate::upstream::{self, Call, ManifestHead};

use super::freshness::{self, Freshness, Withdrawn};
use super::hurry::{Hurry, Slow};
use super::record::{Entry, TagRecord};
use super::{CacheOutcome, Error, Found, Held, StaleReason, TagKey, Tags, What};

type Asking = BoxFuture<'static, Result<Found, Error>>;

/// A question about a tag, with what was known when it was asked.
struct Question {
    key: TagKey,
    old: Option<Arc<Entry>>,
    /// Orders what questions find out: the later one knows better.
    asked: Instant,
    /// Of the client, where an old answer would do.
    hurry: Option<Arc<Hurry>>,
}

impl Question {
    /// Does what takes our own disk's time, for which no upstream is to blame.
    async fn on_our_time<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.hurry {
            Some(hurry) => hurry.pause(work).await,
            None => work.await,
        }
    }

    /// The upstream said that the tag points at `digest`.
    fn hear(&self, digest: &Digest) {
        if let Some(hurry) = &self.hurry {
            hurry.hear(digest);
        }
    }
}

impl Tags {
    /// The work of one question. What another question found out meanwhile is taken as it is, unless `insists`.
    pub(super) async fn resolve(
        self: Arc<Self>,
        key: TagKey,
        call: Call,
        insists: bool,
    ) -> Result<Found, Error> {
        let ttl = self.terms(&key)?.policy.negative_ttl;
        if let Some(absent @ Error::NotFound { .. }) = self.failures.get(&key, self.ctx.now(), ttl)
        {
            return Err(absent);
        }
        let asked = Instant::now();
        let known = self.known(&key).await;
        let found = match &known {
            None => {
                let question = Question {
                    key: key.clone(),
                    old: None,
                    asked,
                    hurry: None,
                };
                self.get(&question, &call).await
            }
            Some(entry) => self.again(&key, entry, &call, asked, insists).await,
        };
        match &found {
            Ok(_) => self.failures.forget(&key),
            Err(error) => self.failed(&key, known.as_deref(), asked, error).await,
        }
        found
    }

    /// Only what an upstream says with authority is remembered of a tag that is not stored; of one that is, any
    /// failure, so that the next requests have their stale answer at once.
    async fn failed(&self, key: &TagKey, known: Option<&Entry>, asked: Instant, error: &Error) {
        let could_be_stale = known.is_some() && freshness::stale_reason(error).is_some();
        if could_be_stale {
            warn!(upstream = %key.place.upstream, repository = %key.place.repository, tag = %key.tag,
                reason = error.reason(), %error, "a tag could not be revalidated");
        }
        if could_be_stale || matches!(error, Error::NotFound { .. }) {
            self.failures
                .put(key.clone(), self.ctx.now(), error.clone());
        }
        if let Some(known) = known
            && let Some(how) = Withdrawn::by(error)
        {
            self.withdraw(key, known, asked, how).await;
        }
    }

    /// Keeps in mind that the upstream took the tag away, until it says otherwise.
    async fn withdraw(&self, key: &TagKey, old: &Entry, asked: Instant, how: Withdrawn) {
        if old.record.withdrawn == Some(how) {
            return;
        }
        let Some(held) = self.manifests.held(&key.place, &old.record.digest).await else {
            return;
        };
        let record = TagRecord {
            withdrawn: Some(how),
            ..old.record.clone()
        };
        self.put(key, Some(old), record, &held, asked).await;
    }

    /// Asks about a known tag; in a hurry, since an old answer would do, for a moment only. One who `insists` takes neither
    /// an old answer nor one that is fresh.
    async fn again(
        self: &Arc<Self>,
        key: &TagKey,
        entry: &Arc<Entry>,
        call: &Call,
        asked: Instant,
        insists: bool,
    ) -> Result<Found, Error> {
        let terms = self.terms(key)?;
        let (record, policy) = (&entry.record, &terms.policy);
        if insists && (!terms.immutable || record.ask) {
            let question = Question {
                key: key.clone(),
                old: Some(Arc::clone(entry)),
                asked,
                hurry: None,
            };
            return Arc::clone(self).revalidate(question, call.clone()).await;
        }
        if terms.immutable && !record.ask {
            return self.again_the_same(key, record, call).await;
        }
        let held = self.manifests.held(&key.place, &record.digest).await;
        let now = self.ctx.now();
        if let Some(held) = &held
            && record.judged(policy, now) == Freshness::Fresh
        {
            return Ok((Arc::clone(held), CacheOutcome::Hit));
        }
        let has_fallback = held.is_some() || record.previous.is_some();
        let would_do = has_fallback
            && freshness::may_serve(policy, StaleReason::Unreachable, record.validated, now);
        let hurry = || Arc::new(Hurry::new(self.ctx.revalidate_timeout, call.deadline));
        let hurry = would_do.then(hurry);
        let question = Question {
            key: key.clone(),
            old: Some(Arc::clone(entry)),
            asked,
            hurry: hurry.clone(),
        };
        let mut asking: Asking = Box::pin(Arc::clone(self).revalidate(question, call.clone()));
        let Some(hurry) = hurry else {
            return asking.await;
        };
        let slow = tokio::select! {
            biased;
            found = &mut asking => return found,
            slow = hurry.is_over() => slow,
        };
        let delivered = self.delivered(key, entry, &hurry);
        self.follow(key, entry, asked, asking);
        delivered.ok_or_else(|| match slow {
            Slow::Upstream => Error::Upstream(upstream::Error::Unavailable {
                message: format!(
                    "{} did not answer within revalidate_timeout ({:?})",
                    key.place.upstream, self.ctx.revalidate_timeout
                ),
            }),
            Slow::Disk => Error::SlowDisk,
        })
    }

    /// What the upstream has delivered in time, where it is our disk that is slow to take it in.
    fn delivered(&self, key: &TagKey, old: &Entry, hurry: &Hurry) -> Option<Found> {
        let digest = hurry.heard()?;
        let held = self.manifests.in_memory(&key.place, &digest)?;
        let outcome = if old.record.digest == digest {
            CacheOutcome::Revalidated
        } else {
            CacheOutcome::Miss
        };
        Some((held, outcome))
    }

    /// Has the manifest of an immutable tag back that is not here any more: the very one.
    async fn again_the_same(
        &self,
        key: &TagKey,
        record: &TagRecord,
        call: &Call,
    ) -> Result<Found, Error> {
        let fetched = self.manifests.fetch(&key.place, &record.digest, call).await;
        fetched.map_err(|error| match error {
            Error::NotFound { what, .. } => Error::NotFound {
                what,
                message: format!(
                    "{} is immutable here and points at {}, which {} does not have any more; `layby refresh` has it followed to what it points at now",
                    key.tag, record.digest, key.place.upstream
                ),
            },
            other => other,
        })
    }

    /// One `HEAD`, and what follows from its answer.
    async fn revalidate(
        self: Arc<Self>,
        question: Question,
        mut call: Call,
    ) -> Result<Found, Error> {
        let place = &question.key.place;
        let remote = self.ctx.remote(&place.upstream)?;
        let reference = Reference::Tag(question.key.tag.clone());
        let answer = remote
            .registry
            .head_manifest(&place.repository, &reference, &call)
            .await
            .map_err(|error| Error::from_upstream(What::Manifest, error))?;
        if question.hurry.is_some() {
            // The client has its answer long before; a manifest that comes after that may take its time.
            call.deadline = self.ctx.own_deadline();
        }
        self.apply(&question, answer, &call).await
    }

    /// Nobody waits for a late answer any more, but what it says still counts: else an upstream that is always a little
    /// too slow would never move a tag. A question that comes while an earlier one is followed is given up.
    fn follow(self: &Arc<Self>, key: &TagKey, known: &Arc<Entry>, asked: Instant, asking: Asking) {
        let Some(follower) = self.late.take(key) else {
            return;
        };
        let (this, key, known) = (Arc::clone(self), key.clone(), Arc::clone(known));
        let late = async move {
            match asking.await {
                Ok(_) => this.failures.forget(&key),
                Err(error) => this.failed(&key, Some(&known), asked, &error).await,
            }
            drop(follower);
        };
        self.ctx.tasks.spawn_until_stop(late.in_current_span());
    }

    /// Takes in what a `HEAD` said. A manifest that is not here is fetched before the tag moves to it.
    async fn apply(
        self: &Arc<Self>,
        question: &Question,
        answer: ManifestHead,
        call: &Call,
    ) -> Result<Found, Error> {
        let place = &question.key.place;
        let old = question.old.as_ref().map(|old| &old.record.digest);
        question.hear(&answer.digest);
        if let Some(manifest) = answer.body {
            let same = old == Some(&manifest.digest);
            let etag = manifest.etag.clone();
            let held = self.manifests.keep(place, manifest).await;
            self.turn(question, &held, etag).await;
            let outcome = if same {
                CacheOutcome::Revalidated
            } else {
                CacheOutcome::Miss
            };
            return Ok((held, outcome));
        }
        if !answer.digest.is_verifiable() {
            return self.get(question, call).await;
        }
        let (manifests, digest) = (&self.manifests, &answer.digest);
        let look = manifests.look(place, digest, call.deadline);
        let looked = question.on_our_time(look).await?;
        match manifests.fetch_after(looked, place, digest, call).await {
            Ok((held, outcome)) => {
                self.turn(question, &held, answer.etag).await;
                let outcome = match outcome {
                    CacheOutcome::Hit => CacheOutcome::Revalidated,
                    fetched => fetched,
                };
                Ok((held, outcome))
            }
            // It moved on in between, or this upstream gives manifests by tag only.
            Err(Error::NotFound { .. }) => self.get(question, call).await,
            Err(error) => Err(error),
        }
    }

    /// One `GET` by tag.
    async fn get(self: &Arc<Self>, question: &Question, call: &Call) -> Result<Found, Error> {
        let place = &question.key.place;
        let remote = self.ctx.remote(&place.upstream)?;
        let reference = Reference::Tag(question.key.tag.clone());
        let manifest = remote
            .registry
            .get_manifest(&place.repository, &reference, call)
            .await
            .map_err(|error| Error::from_upstream(What::Manifest, error))?;
        question.hear(&manifest.digest);
        let etag = manifest.etag.clone();
        let held = self.manifests.keep(place, manifest).await;
        self.turn(question, &held, etag).await;
        Ok((held, CacheOutcome::Miss))
    }

    /// Lets the tag point at `held`, as the upstream just said: in memory now, on disk behind the answer. What was
    /// asked before the tag's present state was, and came late, turns nothing back.
    async fn turn(&self, question: &Question, held: &Arc<Held>, etag: Option<String>) {
        if !held.digest.is_verifiable() {
            return;
        }
        let (key, old) = (&question.key, question.old.as_deref());
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
            ask: false,
            withdrawn: None,
        };
        self.put(key, old, record, held, question.asked).await;
    }

    /// Has `record`, which a question asked at `asked` led to, follow `old`.
    async fn put(
        &self,
        key: &TagKey,
        old: Option<&Entry>,
        record: TagRecord,
        held: &Arc<Held>,
        asked: Instant,
    ) {
        let (entry, save) = Entry::followed_by(old, record.clone(), asked);
        let turned = self.hot.entry(key.clone()).and_compute_with(|current| {
            let is_late = current.is_some_and(|current| current.value().asked > Some(asked));
            if is_late {
                Op::Nop
            } else {
                Op::Put(Arc::new(entry))
            }
        });
        let is_late = matches!(turned, CompResult::Unchanged(_));
        if save && !is_late {
            self.saver.save(key.clone(), record, Arc::clone(held)).await;
        }
    }

    /// Where the tag is to be found while its new manifest is not whole: the newest that was.
    async fn previous(&self, key: &TagKey, old: Option<&Entry>, new: &Held) -> Option<Digest> {
        let entry = old?;
        let (old, now) = (&entry.record, self.ctx.now());
        let is_unmoved = old.digest == new.digest;
        let earlier = old.previous.clone();
        let previous = if is_unmoved {
            earlier
        } else if earlier.is_none() {
            Some(old.digest.clone())
        } else {
            match self.manifests.peek(&key.place, &old.digest).await {
                Some(held) => {
                    let check = self.manifests.complete(&key.place, &held);
                    let is_whole = entry.whole.look(now, check).await;
                    is_whole.then(|| old.digest.clone()).or(earlier)
                }
                None => earlier,
            }
        };
        let previous = previous.filter(|previous| *previous != new.digest)?;
        let check = self.manifests.complete(&key.place, new);
        let is_whole = if is_unmoved {
            entry.whole.look(now, check).await
        } else {
            check.await
        };
        (!is_whole).then_some(previous)
    }
}

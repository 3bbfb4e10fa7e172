//! `tags/list` and referrers: the upstream's answers with the freshness of tags, and our own where it has none to give.
//!
//! Owns the records `_lists/…`, one per repository, kind and query. What an upstream answered is passed on as it is; what
//! is built here says only what is stored. Imports what `proxy` imports.

mod ask;
mod local;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use crate::config::TagPolicy;
use crate::oci::{Digest, TagsQuery};
use crate::store::{RefKey, RefKind};
use crate::upstream::{self, Call};

use super::context::Context;
use super::freshness::{self, Freshness};
use super::manifests::Manifests;
use super::recent::Recent;
use super::singles::{Role, Singles, Subject};
use super::{CacheOutcome, Error, ListAnswer, Place, StaleReason, What};

use record::ListRecord;

/// Lists of all repositories.
pub(super) struct Lists {
    ctx: Arc<Context>,
    manifests: Arc<Manifests>,
    hot: Cache<ListKey, Arc<ListRecord>>,
    failures: Recent<ListKey, Error>,
    questions: Singles<ListKey, Found>,
    /// Referrers are found by reading all manifests of a repository, which is done once at a time.
    scans: Semaphore,
}

type Found = (Arc<ListRecord>, CacheOutcome);

/// A list of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ListKey {
    place: Place,
    /// Hash of the question, which may be long.
    question: Digest,
}

/// What is listed.
#[derive(Debug, Clone)]
enum Wanted {
    Tags(TagsQuery),
    Referrers {
        digest: Digest,
        artifact_types: Vec<String>,
        query: String,
    },
}

/// Most bytes of hot lists.
const HOT_BYTES: u64 = 16 * 1024 * 1024;

/// Hexadecimal digits of a record's name: 256 lists per repository, which clients choose.
const SLOT: usize = 2;

impl Lists {
    /// Lists on the disk and of the upstreams that `ctx` knows.
    pub(super) fn new(ctx: Arc<Context>, manifests: Arc<Manifests>) -> Self {
        let hot = Cache::builder()
            .max_capacity(HOT_BYTES)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, list: &Arc<ListRecord>| list.weight())
            .build();
        Self {
            hot,
            failures: Recent::new(),
            questions: Singles::new(ctx.tasks.clone()),
            scans: Semaphore::new(1),
            ctx,
            manifests,
        }
    }

    /// A page of a repository's tags.
    pub(super) async fn tags(
        self: &Arc<Self>,
        place: &Place,
        query: &TagsQuery,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        self.list(place, Wanted::Tags(query.clone()), call).await
    }

    /// A page of what refers to `digest`. `query` is what the upstream is asked; `artifact_types` is the filter in it.
    pub(super) async fn referrers(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        artifact_types: &[String],
        query: &str,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        let wanted = Wanted::Referrers {
            digest: digest.clone(),
            artifact_types: artifact_types.to_vec(),
            query: query.to_owned(),
        };
        self.list(place, wanted, call).await
    }

    async fn list(
        self: &Arc<Self>,
        place: &Place,
        wanted: Wanted,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        let key = ListKey {
            place: place.clone(),
            question: Digest::sha256(wanted.canonical().as_bytes()),
        };
        if self.ctx.offline {
            return self.offline(&key, &wanted).await;
        }
        let policy = &self.ctx.remote(&place.upstream)?.policy;
        if let Some(answer) = self.without_asking(&key, &wanted, policy, call).await {
            return Ok(answer);
        }
        let resolve = || Arc::clone(self).resolve(key.clone(), wanted.clone(), call.clone());
        match self.questions.run(&key, call.deadline, resolve).await {
            Ok(((list, CacheOutcome::Miss), Role::Joiner)) => {
                self.ctx.metrics.flight.collapsed.inc();
                Ok(list.answer(CacheOutcome::Collapsed, None))
            }
            Ok(((list, outcome), _)) => Ok(list.answer(outcome, None)),
            Err(error) => {
                if let Some(answer) = self.in_spite_of(&key, &wanted, policy, &error).await {
                    return Ok(answer);
                }
                self.instead_of(&key, &wanted, error).await
            }
        }
    }

    /// An answer that needs no upstream, or none before the client has it.
    async fn without_asking(
        self: &Arc<Self>,
        key: &ListKey,
        wanted: &Wanted,
        policy: &TagPolicy,
        call: &Call,
    ) -> Option<ListAnswer> {
        let list = self.known(key, wanted).await?;
        let now = self.ctx.now();
        let freshness = freshness::judge(policy, list.fetched, now);
        if freshness == Freshness::Fresh {
            return Some(list.answer(CacheOutcome::Hit, None));
        }
        if let Some(failure) = self.failures.get(key, now, policy.negative_ttl)
            && let Some(answer) = self.in_spite_of(key, wanted, policy, &failure).await
        {
            return Some(answer);
        }
        if freshness != Freshness::Behind || list.withdrawn.is_some() {
            return None;
        }
        let behind = Call {
            deadline: self.ctx.own_deadline(),
            via: call.via.clone(),
        };
        self.questions.start(key, behind.deadline, || {
            Arc::clone(self).resolve(key.clone(), wanted.clone(), behind.clone())
        });
        Some(self.stale(key, &list, StaleReason::Revalidating))
    }

    /// What is stored, where the policy prefers it to this failure.
    async fn in_spite_of(
        &self,
        key: &ListKey,
        wanted: &Wanted,
        policy: &TagPolicy,
        failure: &Error,
    ) -> Option<ListAnswer> {
        let reason = freshness::stale_reason(failure)?;
        let list = self.known(key, wanted).await?;
        let reason = list.reason(reason);
        freshness::may_serve(policy, reason, list.fetched, self.ctx.now())
            .then(|| self.stale(key, &list, reason))
    }

    /// An upstream that has no list of tags, or takes no such question, may have the tags all the same; one that had a
    /// list took it away with them. Referrers are another matter: a list of ours would hide the fallback tag from their
    /// clients.
    async fn instead_of(
        &self,
        key: &ListKey,
        wanted: &Wanted,
        error: Error,
    ) -> Result<ListAnswer, Error> {
        let is_gone = matches!(error, Error::NotFound { .. });
        let is_withdrawn = is_gone && self.known(key, wanted).await.is_some();
        match (wanted, &error) {
            (
                Wanted::Tags(query),
                Error::NotFound { .. } | Error::Upstream(upstream::Error::Invalid { .. }),
            ) if !is_withdrawn => {
                let built = self.local_tags(&key.place, query).await?;
                built.ok_or(error)
            }
            _ => Err(wanted.failure(error)),
        }
    }

    /// Tags as they can be pulled; referrers as the upstream last told them, else as they are stored. An empty list of
    /// referrers would say that there are none, so it is a `404`.
    async fn offline(&self, key: &ListKey, wanted: &Wanted) -> Result<ListAnswer, Error> {
        let answer = match wanted {
            Wanted::Tags(query) => match self.local_tags(&key.place, query).await? {
                Some(built) => Some(built),
                None => self.stored(key, wanted).await,
            },
            Wanted::Referrers {
                digest,
                artifact_types,
                ..
            } => match self.stored(key, wanted).await {
                Some(stored) => Some(stored),
                None => {
                    self.local_referrers(&key.place, digest, artifact_types)
                        .await?
                }
            },
        };
        answer.ok_or(Error::NotCached {
            what: wanted.what(),
        })
    }

    /// What the upstream last answered, however long ago.
    async fn stored(&self, key: &ListKey, wanted: &Wanted) -> Option<ListAnswer> {
        let list = self.known(key, wanted).await?;
        Some(self.stale(key, &list, StaleReason::Offline))
    }

    fn stale(&self, key: &ListKey, list: &ListRecord, reason: StaleReason) -> ListAnswer {
        self.ctx
            .metrics
            .cache
            .stale_served(key.place.upstream.as_str(), reason.as_str());
        list.answer(
            CacheOutcome::Stale(reason),
            Some(freshness::warning(reason)),
        )
    }
}

impl Subject for ListKey {
    fn awaited(&self) -> &str {
        self.place.upstream.as_str()
    }
}

impl ListKey {
    /// The record. Clients choose the questions, so a repository has a bounded number of records, and questions that
    /// meet in one replace each other.
    fn record(&self) -> RefKey {
        let slot = self.question.encoded().get(..SLOT).unwrap_or_default();
        self.place.key(RefKind::List(slot.to_owned()))
    }
}

impl Wanted {
    fn what(&self) -> What {
        match self {
            Self::Tags(_) => What::Tags,
            Self::Referrers { .. } => What::Referrers,
        }
    }

    /// What a failure means to who asked. An upstream that does not know the question about referrers answers anything
    /// from `400` to a web page; clients look for the fallback tag on a `404` only (distribution-spec, "Unavailable
    /// Referrers API").
    fn failure(&self, error: Error) -> Error {
        match (self, error) {
            (Self::Referrers { .. }, Error::Upstream(upstream::Error::Invalid { message })) => {
                Error::NotFound {
                    what: What::Referrers,
                    message,
                }
            }
            (_, error) => error,
        }
    }

    /// The whole question in one line, the same for the same question.
    fn canonical(&self) -> String {
        match self {
            Self::Tags(query) => format!("tags?{}", query.as_query()),
            Self::Referrers { digest, query, .. } => format!("referrers/{digest}?{query}"),
        }
    }
}

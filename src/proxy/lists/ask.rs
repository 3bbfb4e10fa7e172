//! Asking an upstream for a list, and keeping what it said.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::{Instrument as _, warn};

use crate::flight::ports::BoxFuture;
use crate::upstream::{self, Call};

use super::freshness::{self, Freshness, Withdrawn};
use super::{CacheOutcome, Error, Found, ListKey, ListRecord, Lists, StaleReason, Wanted};

type Asking = BoxFuture<'static, Result<upstream::ListAnswer, upstream::Error>>;

/// Longest list that is kept on disk, in bytes. With the number of records it bounds what clients can make a repository
/// take up by asking.
const STORED: usize = 1024 * 1024;

impl Lists {
    /// The work of one question.
    pub(super) async fn resolve(
        self: Arc<Self>,
        key: ListKey,
        wanted: Wanted,
        call: Call,
    ) -> Result<Found, Error> {
        let policy = &self.ctx.remote(&key.place.upstream)?.policy;
        let now = self.ctx.now();
        let known = self.known(&key, &wanted).await;
        if let Some(list) = &known
            && freshness::judge(policy, list.fetched, now) == Freshness::Fresh
        {
            return Ok((Arc::clone(list), CacheOutcome::Hit));
        }
        if let Some(absent @ Error::NotFound { .. }) =
            self.failures.get(&key, now, policy.negative_ttl)
        {
            return Err(absent);
        }
        let hurry = known.as_ref().is_some_and(|list| {
            let reason = list.reason(StaleReason::Unreachable);
            freshness::may_serve(policy, reason, list.fetched, now)
        });
        let asked = self.ask(&key, &wanted, &call, hurry).await;
        match asked {
            Ok(answer) => Ok((self.keep(&key, &wanted, answer).await, CacheOutcome::Miss)),
            Err(error) => {
                let error = Error::from_upstream(wanted.what(), error);
                // Of a list that is stored, it is the upstream's failure and no word that the list is gone.
                let error = if known.is_none() {
                    wanted.failure(error)
                } else {
                    error
                };
                self.failed(&key, known.as_deref(), &error).await;
                Err(error)
            }
        }
    }

    async fn failed(self: &Arc<Self>, key: &ListKey, known: Option<&ListRecord>, error: &Error) {
        let could_be_stale = known.is_some() && freshness::stale_reason(error).is_some();
        if could_be_stale {
            warn!(upstream = %key.place.upstream, repository = %key.place.repository, question = %key.question,
                reason = error.reason(), %error, "a list could not be revalidated");
        }
        if could_be_stale || matches!(error, Error::NotFound { .. }) {
            self.failures
                .put(key.clone(), self.ctx.now(), error.clone());
        }
        if let Some(known) = known
            && let Some(how) = Withdrawn::by(error)
            && known.withdrawn != Some(how)
            && self
                .hot
                .get(key)
                .is_none_or(|now| now.fetched <= known.fetched)
        {
            self.put(key, known.taken_away(how)).await;
        }
    }

    /// Asks; in a `hurry`, since an old answer would do, only for a moment. A late answer is kept all the same.
    async fn ask(
        self: &Arc<Self>,
        key: &ListKey,
        wanted: &Wanted,
        call: &Call,
        hurry: bool,
    ) -> Result<upstream::ListAnswer, upstream::Error> {
        let Some(remote) = self.ctx.remotes.get(&key.place.upstream) else {
            return Err(upstream::Error::Offline);
        };
        let registry = Arc::clone(&remote.registry);
        let (repository, asked, call) =
            (key.place.repository.clone(), wanted.clone(), call.clone());
        let mut asking: Asking = Box::pin(async move {
            match &asked {
                Wanted::Tags(query) => registry.tags(&repository, query, &call).await,
                Wanted::Referrers { digest, query, .. } => {
                    registry.referrers(&repository, digest, query, &call).await
                }
            }
        });
        if !hurry {
            return asking.await;
        }
        if let Ok(answer) = timeout(self.ctx.revalidate_timeout, &mut asking).await {
            return answer;
        }
        let (this, late_key, wanted) = (Arc::clone(self), key.clone(), wanted.clone());
        let asked_at = self.ctx.now();
        let late = async move {
            let answer = asking.await;
            let current = this.known(&late_key, &wanted).await;
            if current.as_ref().is_some_and(|list| list.fetched > asked_at) {
                return;
            }
            match answer {
                Ok(answer) => {
                    this.keep(&late_key, &wanted, answer).await;
                }
                Err(error) => {
                    let error = Error::from_upstream(wanted.what(), error);
                    this.failed(&late_key, current.as_deref(), &error).await;
                }
            }
        };
        self.ctx.tasks.spawn_until_stop(late.in_current_span());
        Err(upstream::Error::Unavailable {
            message: format!(
                "{} did not answer within revalidate_timeout ({:?})",
                key.place.upstream, self.ctx.revalidate_timeout
            ),
        })
    }

    /// Takes in an answer.
    async fn keep(
        self: &Arc<Self>,
        key: &ListKey,
        wanted: &Wanted,
        answer: upstream::ListAnswer,
    ) -> Arc<ListRecord> {
        let list = ListRecord::of(wanted.canonical(), answer, self.ctx.now());
        self.failures.forget(key);
        self.put(key, list).await
    }

    /// Has `list` be what is known: in memory now, on disk behind the answer.
    async fn put(self: &Arc<Self>, key: &ListKey, list: ListRecord) -> Arc<ListRecord> {
        let list = Arc::new(list);
        self.hot.insert(key.clone(), Arc::clone(&list));
        let (this, key, storing) = (Arc::clone(self), key.clone(), Arc::clone(&list));
        let write = async move {
            if let Err(error) = this.store(&key, &storing).await {
                warn!(upstream = %key.place.upstream, repository = %key.place.repository, question = %key.question, %error,
                    "a list is not stored");
            }
        };
        self.ctx.write_behind(write).await;
        list
    }

    async fn store(&self, key: &ListKey, list: &ListRecord) -> std::io::Result<()> {
        if list.body.len() > STORED {
            return Ok(());
        }
        let record = list.to_bytes()?;
        self.ctx.records.put(&key.record(), record).await
    }

    /// What is known of the list, in memory or on disk.
    pub(super) async fn known(&self, key: &ListKey, wanted: &Wanted) -> Option<Arc<ListRecord>> {
        if let Some(list) = self.hot.get(key) {
            return Some(list);
        }
        let record = self.ctx.record(&key.record()).await?;
        match ListRecord::from_bytes(record) {
            Ok(list) if list.head.query == wanted.canonical() => Some(
                self.hot
                    .entry(key.clone())
                    .or_insert_with(|| Arc::new(list))
                    .into_value(),
            ),
            Ok(_) => None,
            Err(error) => {
                warn!(upstream = %key.place.upstream, repository = %key.place.repository, question = %key.question, %error,
                    "a list's record is damaged and counts as missing");
                None
            }
        }
    }
}

//! What the decisions share: the disk, the upstreams and their policies, the clock.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, warn};

use crate::config::{Limits, TagPolicy, TagRules, UpstreamName};
use crate::runtime::{Clock, Tasks};
use crate::store::{RefKey, RefKind};
use crate::telemetry::Metrics;
use crate::upstream;

use super::ports::{Records, Registry};
use super::{Error, Place};

/// What every decision about small content stands on.
pub(super) struct Context {
    /// The disk.
    pub(super) records: Arc<dyn Records>,
    /// The upstreams, by their key.
    pub(super) remotes: HashMap<UpstreamName, Remote>,
    /// Time that freshness is measured in.
    pub(super) clock: Clock,
    /// Counters.
    pub(super) metrics: Arc<Metrics>,
    /// Owner of fetches and writes that outlive a request.
    pub(super) tasks: Tasks,
    /// Whether no upstream is asked and nothing expires.
    pub(super) offline: bool,
    /// For a request that no client waits for, from its start to the answer's head.
    pub(super) header_timeout: Duration,
    /// For the question whether an answer that could also be served stale still holds.
    pub(super) revalidate_timeout: Duration,
    writes: Arc<Semaphore>,
}

/// An upstream and how long its answers hold.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    /// The upstream.
    pub(super) registry: Arc<dyn Registry>,
    /// Freshness of its tags and lists.
    pub(super) policy: TagPolicy,
    /// What holds for some tags in particular.
    pub(super) rules: Arc<TagRules>,
}

/// Writes behind answers that may be under way at once. Commits are batched, so many of them cost little more than one.
const WRITES: usize = 256;

/// How long an answer waits for a place among them before it goes out unsaved.
const WRITE_WAIT: Duration = Duration::from_secs(2);

impl Context {
    /// A context; `limits` gives the time-outs.
    pub(super) fn new(
        records: Arc<dyn Records>,
        remotes: HashMap<UpstreamName, Remote>,
        limits: &Limits,
        offline: bool,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Self {
        Self {
            records,
            remotes,
            clock,
            metrics,
            tasks,
            offline,
            header_timeout: limits.header_timeout,
            revalidate_timeout: limits.revalidate_timeout,
            writes: Arc::new(Semaphore::new(WRITES)),
        }
    }

    /// The upstream of that name.
    pub(super) fn remote(&self, name: &UpstreamName) -> Result<&Remote, Error> {
        self.remotes.get(name).ok_or_else(|| {
            Error::Upstream(upstream::Error::Refused {
                message: format!("{name} is not a configured upstream; add it under [upstreams]"),
                key: "upstreams",
            })
        })
    }

    /// Now, to the millisecond.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::try_from(self.clock.now())
            .and_then(|now| Timestamp::from_millisecond(now.as_millisecond()))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The deadline of a question that no client waits for.
    pub(super) fn own_deadline(&self) -> Instant {
        Instant::now() + self.header_timeout
    }

    /// The record at `key`. A disk that fails to read it is logged, and is the same as none: the upstream knows too.
    pub(super) async fn record(&self, key: &RefKey) -> Option<Vec<u8>> {
        let record = self.records.get(key).await;
        record.unwrap_or_else(|error| unreadable(key, &error))
    }

    /// The first of these records that is there, likewise.
    pub(super) async fn first_record(&self, keys: &[RefKey]) -> Option<Vec<u8>> {
        let record = self.records.first(keys).await;
        record.unwrap_or_else(|error| unreadable(keys.first()?, &error))
    }

    /// Runs `write` behind the answer, as an owned task that shutdown waits for. Returns once it has a place among the
    /// writes under way; whether it got one in time.
    pub(super) async fn write_behind<F>(&self, write: F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = timeout(WRITE_WAIT, Arc::clone(&self.writes).acquire_owned()).await;
        let Ok(Ok(permit)) = place else {
            warn!("an answer is not stored: too many writes are waiting for the disk");
            return false;
        };
        let write = async move {
            write.await;
            drop(permit);
        };
        self.tasks.spawn(write.in_current_span());
        true
    }
}

fn unreadable(key: &RefKey, error: &io::Error) -> Option<Vec<u8>> {
    warn!(upstream = %key.upstream, repository = %key.repository, kind = ?key.kind, %error,
        "a record cannot be read and counts as missing");
    None
}

impl Place {
    /// The key of a record about this repository.
    pub(super) fn key(&self, kind: RefKind) -> RefKey {
        RefKey {
            upstream: self.upstream.clone(),
            repository: self.repository.clone(),
            kind,
        }
    }
}

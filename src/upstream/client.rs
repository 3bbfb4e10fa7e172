//! An upstream: the questions that may be asked of it, its URLs in turn.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::answer::Reply;
use super::endpoint::{Endpoint, Question};
use super::{Error, via};
use crate::config;
use crate::oci::RepoName;
use crate::telemetry::Metrics;

/// What comes with a question.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the head of the answer must be there; for manifests and lists, the whole answer.
    pub deadline: Instant,
    /// The client's `Via`, to which this instance is added.
    pub via: Option<HeaderValue>,
}

/// A registry that is pulled from.
pub struct Upstream {
    pub(super) config: Arc<config::Upstream>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) instance_id: Arc<str>,
    pub(super) offline: bool,
    pub(super) stall_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
    /// [`MAX_UNDER_WAY`], less those that are.
    pub(super) under_way: Arc<Semaphore>,
}

/// Most requests to one upstream at once, those whose bodies are still coming included; further ones wait.
pub(super) const MAX_UNDER_WAY: usize = 256;

/// A question before it is known which URL answers it.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) method: Method,
    /// Label in metrics.
    pub(super) kind: &'static str,
    pub(super) repository: &'a RepoName,
    /// What follows the repository.
    pub(super) path: String,
    pub(super) query: &'a str,
    pub(super) accept: Option<&'static str>,
    pub(super) range: Option<HeaderValue>,
}

impl Upstream {
    /// Its key in the configuration.
    pub fn name(&self) -> &config::UpstreamName {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<config::Upstream> {
        &self.config
    }

    /// Asks, as soon as there are not too many requests under way. The reply counts as one until it is dropped.
    pub(super) async fn ask(&self, asking: Asking<'_>, call: &Call) -> Result<Reply, Error> {
        if self.offline {
            return Err(Error::Offline);
        }
        if call
            .via
            .as_ref()
            .is_some_and(|via| via::is_own_via(via, &self.instance_id))
        {
            return Err(Error::Loop);
        }
        let permit = self.permit(call.deadline).await?;
        let reply = self.ask_in_turn(asking, call).await?;
        Ok(reply.counted(permit))
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.under_way).acquire_owned();
        let permit = timeout_at(deadline, permit).await.ok().and_then(Result::ok);
        permit.ok_or_else(|| {
            Error::unavailable(format!(
                "upstream {} has {MAX_UNDER_WAY} requests under way, and none ended in time",
                self.name()
            ))
        })
    }

    /// Asks the URLs in order, until one is neither unreachable nor broken. Each but the last has its share of the time.
    async fn ask_in_turn(&self, asking: Asking<'_>, call: &Call) -> Result<Reply, Error> {
        let question = Question {
            method: asking.method,
            kind: asking.kind,
            repository: asking.repository,
            path: asking.path,
            query: asking.query,
            accept: asking.accept,
            range: asking.range,
            via: via::appended(call.via.as_ref(), &self.instance_id),
        };
        let Some((last, others)) = self.endpoints.split_last() else {
            return Err(Error::unavailable(format!(
                "upstream {} has no url",
                self.name()
            )));
        };
        for (tried, endpoint) in others.iter().enumerate() {
            let deadline = share(call.deadline, self.endpoints.len() - tried);
            match endpoint.ask(&question, deadline).await {
                Err(error @ Error::Unavailable { .. }) => {
                    tracing::warn!(upstream = %self.name(), %error, "asking the upstream's next url");
                }
                result => return result,
            }
        }
        last.ask(&question, call.deadline).await
    }
}

/// The deadline of the next of `left` tries.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / left
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("name", self.name())
            .finish_non_exhaustive()
    }
}

//! An upstream: the questions that may be asked of it, its URLs in turn.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use tokio::time::Instant;

use super::answer::Reply;
use super::endpoint::{Endpoint, Question};
use super::failure::{Failure, Kind};
use super::health::{Load, Turns};
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
    /// Places for requests under way.
    pub(super) turns: Turns,
}

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

    /// Asks once, as soon as there is a place for a request of this load, which the reply keeps until it is dropped.
    /// While the upstream is left alone, the error is there at once.
    pub(super) async fn ask(
        &self,
        asking: Asking<'_>,
        load: Load,
        call: &Call,
    ) -> Result<Reply, Failure> {
        if self.offline {
            return Err(Error::Offline.into());
        }
        if call
            .via
            .as_ref()
            .is_some_and(|via| via::is_own_via(via, &self.instance_id))
        {
            return Err(Error::Loop.into());
        }
        self.check()?;
        let turn = self.turns.take(load, call.deadline).await;
        let turn = turn.ok_or_else(|| {
            let (most, name) = (Turns::most(load), self.name());
            let message = format!(
                "upstream {name} has {most} requests of this kind under way, and none ended in time"
            );
            Failure::unavailable(Kind::Hurried, message)
        })?;
        let reply = self.ask_in_turn(asking, load, call).await?;
        Ok(reply.counted(turn))
    }

    /// Fails where asking the URLs in order would, without a word to any.
    fn check(&self) -> Result<(), Failure> {
        let mut result = Ok(());
        for endpoint in &self.endpoints {
            result = endpoint.check();
            if !result.as_ref().is_err_and(asks_next) {
                break;
            }
        }
        result
    }

    /// Asks the URLs in order, until one is neither unreachable nor broken. Each but the last has its share of the time.
    async fn ask_in_turn(
        &self,
        asking: Asking<'_>,
        load: Load,
        call: &Call,
    ) -> Result<Reply, Failure> {
        let question = Question {
            method: asking.method,
            kind: asking.kind,
            load,
            repository: asking.repository,
            path: asking.path,
            query: asking.query,
            accept: asking.accept,
            range: asking.range,
            via: via::appended(call.via.as_ref(), &self.instance_id),
        };
        let mut result = Err(Failure::unavailable(
            Kind::Final,
            format!("upstream {} has no url", self.name()),
        ));
        // A try of any that may end better is one of the upstream.
        let mut may_recover = None;
        for (tried, endpoint) in self.endpoints.iter().enumerate() {
            let deadline = share(call.deadline, self.endpoints.len() - tried);
            result = endpoint.ask(&question, deadline).await;
            match &result {
                Err(failure) if asks_next(failure) => {
                    if tried + 1 < self.endpoints.len() {
                        self.log_next(failure);
                    }
                    may_recover = may_recover.or(failure.again_after().map(|_| failure.kind));
                }
                _ => return result,
            }
        }
        result.map_err(|failure| Failure {
            kind: may_recover.unwrap_or(failure.kind),
            ..failure
        })
    }

    fn log_next(&self, failure: &Failure) {
        let (upstream, error) = (self.name(), &failure.error);
        if failure.kind == Kind::Shut {
            // It was said when that began.
            tracing::debug!(%upstream, %error, "asking the upstream's next url");
        } else {
            tracing::warn!(%upstream, %error, "asking the upstream's next url");
        }
    }
}

/// Whether a URL that failed so leaves the question to the next.
fn asks_next(failure: &Failure) -> bool {
    matches!(failure.error, Error::Unavailable { .. })
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

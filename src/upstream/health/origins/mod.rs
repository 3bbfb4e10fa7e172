//! The hosts of one upstream: its own, token services, and where redirects lead. Each is judged by itself, so that a
//! dead storage host does not make the registry count as dead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::gate::Probe;
use super::hold::Hold;
use super::{Reason, seconds};
use crate::config::UpstreamName;
use crate::runtime::Clock;
use crate::telemetry::{Counted, Metrics};
use crate::upstream::Error;
use crate::upstream::failure::{Failure, Kind};
use crate::upstream::net::Origin;

/// What is known of the hosts of one upstream. Bounded: foreign ones that were not asked for longest are forgotten.
#[derive(Debug)]
pub(in crate::upstream) struct Origins {
    upstream: UpstreamName,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// The upstream's own, which are not forgotten.
    own: Vec<Origin>,
    states: Mutex<HashMap<Origin, State>>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    hold: Hold,
    /// Why the breaker is open, which the metric shows meanwhile.
    dead: Option<(Reason, Counted)>,
    /// Shown in the metric while requests are held.
    held: Option<Counted>,
    asked: Instant,
}

/// Leave to send one request to one host. Dropped without a word, as when the caller leaves, it counts as nothing.
#[derive(Debug)]
pub(in crate::upstream) struct Pass<'o> {
    origins: &'o Origins,
    origin: Origin,
    began: Instant,
    breaker_probe: Option<Probe>,
    hold_probe: Option<Probe>,
}

/// Most hosts of one upstream that are remembered; registries have a handful.
const MOST: usize = 64;

impl Origins {
    /// Of `upstream`, whose URLs have the origins `own`.
    pub(in crate::upstream) fn new(
        upstream: &UpstreamName,
        own: Vec<Origin>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstream: upstream.clone(),
            clock,
            metrics,
            own,
            states: Mutex::default(),
        }
    }

    /// Fails at once where a request to `origin` would not be let through.
    pub(in crate::upstream) fn check(&self, origin: &Origin) -> Result<(), Failure> {
        let now = self.clock.monotonic();
        let states = self.states.lock();
        let Some(state) = states.get(origin) else {
            return Ok(());
        };
        if let Some(left) = state.breaker.left(now) {
            return Err(dead(origin, &state.breaker, left));
        }
        match state.hold.left(now) {
            Some(left) => Err(held(origin, left)),
            None => Ok(()),
        }
    }

    /// Leave to send a request to `origin` now. While it is left alone there is none, and then for one at a time.
    pub(in crate::upstream) fn admit(&self, origin: &Origin) -> Result<Pass<'_>, Failure> {
        let now = self.clock.monotonic();
        let mut states = self.states.lock();
        let state = self.state(&mut states, origin, now);
        let breaker_probe = match state.breaker.enter(now) {
            Ok(probe) => probe,
            Err(left) => return Err(dead(origin, &state.breaker, left)),
        };
        let hold_probe = state.hold.enter(now).map_err(|left| {
            if let Some(probe) = breaker_probe {
                state.breaker.abandon(probe);
            }
            held(origin, left)
        })?;
        Ok(Pass {
            origins: self,
            origin: origin.clone(),
            began: now,
            breaker_probe,
            hold_probe,
        })
    }

    /// Notes that `origin` refused a request for our rate, with the wait that it asked for; gives how long it is not
    /// asked now.
    pub(in crate::upstream) fn limited(
        &self,
        origin: &Origin,
        retry_after: Option<Duration>,
    ) -> Duration {
        let now = self.clock.monotonic();
        let mut states = self.states.lock();
        let state = self.state(&mut states, origin, now);
        let time = state.hold.limited(now, retry_after);
        let is_news = state.held.is_none();
        if is_news {
            state.held = Some(self.mark(Reason::RateLimit));
        }
        drop(states);
        if is_news {
            self.log_shut(origin, Reason::RateLimit, time, "it limits our rate");
        }
        time
    }

    /// The state of `origin`, which is asked now.
    fn state<'s>(
        &self,
        states: &'s mut HashMap<Origin, State>,
        origin: &Origin,
        now: Instant,
    ) -> &'s mut State {
        if states.len() >= MOST && !states.contains_key(origin) {
            self.forget_one(states);
        }
        let state = states.entry(origin.clone()).or_insert_with(|| State {
            breaker: Breaker::default(),
            hold: Hold::of_everything(),
            dead: None,
            held: None,
            asked: now,
        });
        state.asked = now;
        state
    }

    /// Forgets the foreign host that was not asked for longest, one that answers before one that is left alone.
    fn forget_one(&self, states: &mut HashMap<Origin, State>) {
        let least = states
            .iter()
            .filter(|(origin, _)| !self.own.contains(origin))
            .min_by_key(|(_, state)| {
                let is_left_alone = state.breaker.is_shut() || state.hold.is_shut();
                (is_left_alone, state.asked)
            })
            .map(|(origin, _)| origin.clone());
        if let Some(origin) = least {
            states.remove(&origin);
        }
    }

    fn mark(&self, reason: Reason) -> Counted {
        let upstream = self.upstream.as_str();
        self.metrics.upstream.held(upstream, reason.as_str())
    }

    fn log_shut(&self, origin: &Origin, reason: Reason, time: Duration, error: &str) {
        tracing::warn!(
            upstream = %self.upstream, %origin, reason = reason.as_str(), for_s = seconds(time), error,
            "upstream host is left alone"
        );
    }

    fn log_open(&self, origin: &Origin, reason: Reason) {
        tracing::info!(
            upstream = %self.upstream, %origin, reason = reason.as_str(),
            "upstream host answers again"
        );
    }
}

impl Pass<'_> {
    /// The host answered with this status.
    pub(in crate::upstream) fn answered(mut self, status: StatusCode) {
        let now = self.origins.clock.monotonic();
        let hold_probe = self.hold_probe.take();
        self.breaker_probe = None;
        let mut states = self.origins.states.lock();
        let Some(state) = states.get_mut(&self.origin) else {
            return;
        };
        state.breaker.answered(now);
        let revived = state.dead.take();
        // Some say with 403 that there were too many requests: that it is so comes with the body.
        if matches!(status.as_u16(), 403 | 429) {
            self.hold_probe = hold_probe;
        } else {
            state.hold.answered(hold_probe);
        }
        let lifted = !state.hold.is_shut() && state.held.take().is_some();
        drop(states);
        if let Some((reason, _)) = revived {
            self.origins.log_open(&self.origin, reason);
        }
        if lifted {
            self.origins.log_open(&self.origin, Reason::RateLimit);
        }
    }

    /// There was no answer.
    pub(in crate::upstream) fn failed(mut self, failure: &Failure) {
        let reason = match failure.kind {
            Kind::Unreachable | Kind::Reset => Reason::Unreachable,
            Kind::Silent => Reason::Silent,
            // A host that takes connections is not dead.
            Kind::Broken => {
                return self.answered(StatusCode::BAD_GATEWAY);
            }
            Kind::Hurried | Kind::Failing(_) | Kind::Shut | Kind::Final => return,
        };
        let now = self.origins.clock.monotonic();
        let probe = self.breaker_probe.take();
        let error = failure.error.to_string();
        let mut states = self.origins.states.lock();
        let Some(state) = states.get_mut(&self.origin) else {
            return;
        };
        let opened = state
            .breaker
            .failed(reason, self.began, probe, now, &said(reason, &error));
        let is_news = opened.is_some() && state.dead.is_none();
        if is_news {
            state.dead = Some((reason, self.origins.mark(reason)));
        }
        drop(states);
        if let Some(time) = opened.filter(|_| is_news) {
            self.origins.log_shut(&self.origin, reason, time, &error);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.breaker_probe.is_none() && self.hold_probe.is_none() {
            return;
        }
        if let Some(state) = self.origins.states.lock().get_mut(&self.origin) {
            if let Some(probe) = self.breaker_probe {
                state.breaker.abandon(probe);
            }
            if let Some(probe) = self.hold_probe {
                state.hold.abandon(probe);
            }
        }
    }
}

/// What those are told of a failure who ask later: nothing of what was asked then.
fn said(reason: Reason, error: &str) -> String {
    match reason {
        Reason::Silent => "it takes connections and answers nothing".to_owned(),
        _ => error.to_owned(),
    }
}

fn dead(origin: &Origin, breaker: &Breaker, left: Duration) -> Failure {
    let (last, seconds) = (breaker.last(), seconds(left));
    Failure::unavailable(
        Kind::Shut,
        format!("{origin} is not tried for {seconds} s, since it failed repeatedly: {last}"),
    )
}

fn held(origin: &Origin, left: Duration) -> Failure {
    let seconds = seconds(left);
    let error = Error::RateLimited {
        retry_after: Some(left),
        message: format!("{origin} limits our rate, so it is not asked for {seconds} s"),
    };
    Failure::new(Kind::Shut, error)
}

#[cfg(test)]
mod tests;

//! What becomes of failures: another try, another source, or the end of the flight.

use std::any::Any;
use std::io;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Leader, Mismatch, StepId};
use crate::flight::ports::{FetchError, Leave, Remedy, SourceFailure};
use crate::flight::shared::Failure;

/// Reason of answers that contradict what is known of the blob.
pub(super) const CORRUPT: &str = "corrupt";

/// An answer that is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misfit {
    /// It contradicts what is known of the blob.
    #[error("{0}")]
    Contradicts(String),
    /// Its body ended before the last byte that was asked for.
    #[error("the body ended before the last byte that was asked for")]
    Short,
}

impl SourceFailure for Misfit {
    fn reason(&self) -> &'static str {
        match self {
            Self::Contradicts(_) => CORRUPT,
            Self::Short => "unavailable",
        }
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::Contradicts(_) => Remedy::None,
            Self::Short => Remedy::Again(std::time::Duration::ZERO),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Leader {
    /// A step failed: after a while, it is tried again where it broke off.
    pub(super) fn step_failed(&mut self, step: StepId, error: &FetchError) {
        let (mut remedy, key) = (error.remedy(), &self.flight.key);
        let opened = self.flight.with(|state| state.has_answer());
        if !opened && Instant::now() >= self.opening {
            remedy = Remedy::None;
        }
        if matches!(error.reason(), "invalid" | CORRUPT) {
            let upstream = key.upstream.as_str();
            self.flights.metrics.upstream.verify_failed(upstream);
        }
        let chance = fastrand::f64();
        let (index, wait, is_given_up) = self.flight.with(|state| {
            let index = state.source_of(step);
            let wait = state.step_failed(step, Arc::clone(error), remedy, chance);
            (
                index,
                wait,
                index.is_none_or(|index| state.is_given_up(index)),
            )
        });
        let source = index.and_then(|index| self.flight.source(index));
        let repository = source.as_ref().map_or("", |source| source.key());
        if is_given_up {
            tracing::warn!(
                upstream = %key.upstream, repository, digest = %key.digest,
                reason = error.reason(), %error, "a source of a blob failed"
            );
        } else {
            tracing::info!(
                upstream = %key.upstream, repository, digest = %key.digest,
                reason = error.reason(), %error,
                wait_ms = wait.map_or(0, |wait| wait.as_millis()),
                "a fetch broke off and is tried again"
            );
        }
        if let Some(wait) = wait {
            self.pause = Some(Instant::now() + wait);
        }
        self.flight.publish();
    }

    /// An answer contradicts what is known of the blob. If that is only what an earlier fetch left, its word counts less.
    pub(super) fn misfit(&mut self, step: StepId, mismatch: &Mismatch) {
        let key = &self.flight.key;
        if let Some(stage) = self.left.take() {
            tracing::warn!(
                upstream = %key.upstream, digest = %key.digest, %mismatch,
                "what an earlier fetch left is thrown away"
            );
            stage.close(Leave::Nothing);
            self.flight.with(|state| {
                state.close_step(step);
                state.start_over();
            });
            return;
        }
        let text = format!("{}, {}: {mismatch}", key.upstream, key.digest);
        let error: FetchError = Arc::new(Misfit::Contradicts(text));
        self.step_failed(step, &error);
    }

    /// Has the next fetch ask others first than those whose bytes do not match.
    pub(super) fn ban(&self) {
        let key = &self.flight.key;
        let sources = self.flight.sources();
        let (wrong, is_sure) = self.flight.with(|state| {
            let wrong = state.bringers();
            let is_sure = wrong.len() == 1 && !state.has_resumed();
            (wrong, is_sure)
        });
        for source in wrong.iter().filter_map(|&index| sources.get(index)) {
            tracing::warn!(
                upstream = %key.upstream, repository = source.key(), digest = %key.digest,
                is_sure, "a source sent bytes that do not match, others are asked before it for a while"
            );
        }
        self.flights.bans.mismatched(key, &sources, &wrong);
    }

    /// The flight is over, without the blob.
    pub(super) fn failed(&self, why: &Failure) {
        self.log(why);
        if let Some(stage) = self.flight.stage.get() {
            stage.close(what_to_leave(why));
        }
    }

    fn log(&self, why: &Failure) {
        let key = &self.flight.key;
        match why {
            // Each source's failure has been logged; a bypass is logged by whoever streams past.
            Failure::Source(_) | Failure::Bypass(..) => {}
            why if self.flight.with(|state| state.is_verified()) => tracing::error!(
                upstream = %key.upstream, digest = %key.digest, error = %why,
                "a blob was delivered but could not be stored"
            ),
            why => tracing::error!(
                upstream = %key.upstream, digest = %key.digest, error = %why, "a fetch failed"
            ),
        }
    }
}

/// What a failed fetch leaves for the next one.
fn what_to_leave(why: &Failure) -> Leave {
    match why {
        // Nobody knows which of the bytes are wrong.
        Failure::Corrupt(_) => Leave::Nothing,
        // A disk that is full keeps what it has; of one that fails otherwise nothing is believed.
        Failure::Wrecked(wreck) if wreck.error().kind() != io::ErrorKind::StorageFull => {
            Leave::Nothing
        }
        // That of a failed commit too: its bytes are verified, and a stage that could not be synced keeps nothing anyway.
        _ => Leave::Resumable,
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.metrics.flight.flights.dec();
        self.flight.ended();
        let stage = self.flight.stage.get().or(self.left.as_ref());
        if let Some(stage) = stage
            && !self.is_committed
        {
            stage.close(Leave::Resumable);
        }
        // Whoever drops it drops its lease next, and that fails the flight if it has no outcome.
    }
}

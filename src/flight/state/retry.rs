//! How a flight bears with steps that break. Pure.

use std::time::Duration;

use super::{State, StepId};
use crate::flight::backoff::Backoff;
use crate::flight::ports::Remedy;

/// So many new bytes count as progress: what went wrong before is forgotten.
pub(in crate::flight) const PROGRESS: u64 = 64 * 1024;
/// The longest wait that an upstream may ask for before its first answer, while clients wait for their status lines …
const PATIENCE_BEFORE: Duration = Duration::from_secs(2);
/// … and later.
const PATIENCE_AFTER: Duration = Duration::from_secs(60);

/// What is left of the patience with broken steps.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    /// New bytes since the last progress.
    since: u64,
    /// No further try is worth it.
    pub(super) spent: bool,
    /// Nothing is asked until the leader says so.
    pub(super) paused: bool,
    /// The next request makes good for a broken one.
    pub(super) broken: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            backoff: Backoff::untried(2),
            since: 0,
            spent: false,
            paused: false,
            broken: false,
        }
    }
}

impl Retry {
    /// All tries are there again.
    pub(super) fn renew(&mut self, backoff: Backoff) {
        self.backoff = backoff;
        self.since = 0;
        self.spent = false;
    }
}

impl<E: Clone, F: Clone> State<E, F> {
    /// The tries that a run of failures has from now on.
    pub(super) fn patience(&self) -> Backoff {
        if self.sources.any_answered() {
            Backoff::proven()
        } else {
            Backoff::untried(2.max(u32::try_from(self.sources.len()).unwrap_or(2)))
        }
    }

    /// So many new bytes came.
    pub(super) fn progressed(&mut self, count: u64) {
        self.retry.since += count;
        if self.retry.since >= PROGRESS {
            self.retry.renew(Backoff::proven());
            self.sources.progressed();
        }
    }

    /// A step failed, before its head or after it. How long the leader waits before it says [`State::go_on`]; `None`: it
    /// need not. `chance` is as in [`Backoff::failed`].
    pub(in crate::flight) fn step_failed(
        &mut self,
        id: StepId,
        error: E,
        remedy: Remedy,
        chance: f64,
    ) -> Option<Duration> {
        let source = self.close_step(id)?;
        let answered = self.sources.any_answered();
        let patience = if answered {
            PATIENCE_AFTER
        } else {
            PATIENCE_BEFORE
        };
        let (remedy, asked) = match remedy {
            Remedy::Again(wait) if wait > patience => (Remedy::None, Duration::ZERO),
            Remedy::Again(wait) => (remedy, wait),
            // What was never good has not expired.
            Remedy::Renew if !answered => (Remedy::None, Duration::ZERO),
            _ => (remedy, Duration::ZERO),
        };
        self.sources.failed(source, error, remedy);
        self.retry.broken = answered;
        // A source that is out leaves the way to the next; steps that break together are one failure.
        if remedy == Remedy::None || self.retry.paused {
            return None;
        }
        match self.retry.backoff.failed(asked, chance) {
            Some(wait) if wait.is_zero() => None,
            Some(wait) => {
                self.retry.paused = true;
                Some(wait)
            }
            None => {
                self.retry.spent = true;
                None
            }
        }
    }

    /// The wait after a failure is over.
    pub(in crate::flight) fn go_on(&mut self) {
        self.retry.paused = false;
    }
}

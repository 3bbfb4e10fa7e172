//! A rest after which one may see whether it is over. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::health::Backoff;

/// Rests that grow until what they wait for has come.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// Rests so far.
    rests: u32,
    until: Option<Instant>,
    /// Whether one tries just now, while the others wait until `until`.
    on_trial: bool,
}

/// How long the others wait at most for the one that tries.
pub(super) const TRIAL: Duration = Duration::from_secs(10);

impl Pause {
    /// How much longer it lasts.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Has the caller try, and the others wait meanwhile, where it is over.
    pub(super) fn try_out(&mut self, now: Instant) {
        if self.until.is_some() {
            self.on_trial = true;
            self.until = Some(now + TRIAL);
        }
    }

    /// Whether one tries.
    pub(super) fn is_tried_out(&self) -> bool {
        self.on_trial
    }

    /// Whether there was a rest.
    pub(super) fn has_been(&self) -> bool {
        self.rests > 0
    }

    /// Begins the next rest. While one lasts, and nobody tries, the news is of the same moment and changes nothing.
    pub(super) fn begin(&mut self, now: Instant, rests: Backoff) -> Option<Duration> {
        if self.left(now).is_some() && !self.on_trial {
            return None;
        }
        let rest = rests.wait(self.rests);
        self.rests = self.rests.saturating_add(1);
        self.until = Some(now + rest);
        self.on_trial = false;
        Some(rest)
    }

    /// What is lost when it is forgotten: most while it lasts, something if there was one.
    pub(super) fn relevance(&self, now: Instant) -> u8 {
        u8::from(self.has_been()) + u8::from(self.left(now).is_some())
    }
}

//! How often blobs go for the sake of free space. A file system may not count as free what went: snapshots and hard links
//! keep it, or it frees it later.

use std::time::Duration;

use tokio::time::Instant;

use super::INTERVAL;

/// The rounds of eviction for free space. After each, what came of it is looked at no sooner than after a rest.
#[derive(Debug)]
pub(in crate::store) struct Pace {
    last: Option<Round>,
    rest: Duration,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Round {
    /// See [`Nearness::unfilled`](crate::store::room::Nearness).
    unfilled: u64,
    gone: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last: None,
            rest: INTERVAL,
            rests_until: None,
        }
    }
}

impl Pace {
    pub(super) fn is_resting(&self) -> bool {
        self.rests_until.is_some_and(|end| Instant::now() < end)
    }

    /// Judges the last round, once, by what is free after the rest: after one that freed nothing, the next rest is longer.
    pub(super) fn judge(&mut self, unfilled: u64) {
        let Some(round) = self.last.take() else {
            return;
        };
        if unfilled.saturating_sub(round.unfilled) >= round.gone / 2 {
            self.rest = INTERVAL;
            return;
        }
        self.rest = LONGEST_REST.min(self.rest * 2);
        tracing::warn!(
            size_bytes = round.gone,
            "what was evicted frees no space: snapshots, hard links, files held open, or others who fill the disk?"
        );
    }

    /// Notes a round that removed `gone` bytes.
    pub(super) fn evicted(&mut self, unfilled: u64, gone: u64) {
        self.last = Some(Round { unfilled, gone });
        self.rests_until = Some(Instant::now() + self.rest);
    }
}

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_hours(1);

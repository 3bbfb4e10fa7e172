//! How long to wait before a broken fetch is tried again, and how often. Pure: whoever uses it waits and brings the chance.

use std::time::Duration;

/// Waits that double, of which a run without progress has only so many.
///
/// The first wait after progress is none at all: most breaks are a connection that was closed in passing.
#[derive(Debug, Clone)]
pub struct Backoff {
    limit: u32,
    tries: u32,
    immediate: bool,
}

/// The shortest wait that is one.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(10);

impl Backoff {
    /// Tries without progress before a fetch under way is given up: about half a minute of waits, and what the tries
    /// themselves take.
    pub const TRIES: u32 = 10;

    /// For something that has not worked yet: `tries` more, with a wait before each.
    pub const fn untried(tries: u32) -> Self {
        Self {
            limit: tries,
            tries: 0,
            immediate: false,
        }
    }

    /// For something that has worked: [`Backoff::TRIES`], the first of them at once.
    pub const fn proven() -> Self {
        Self {
            limit: Self::TRIES,
            tries: 0,
            immediate: true,
        }
    }

    /// Notes a failure. The wait before the next try, at least `asked`, which is what the other side asked for; `None`: no
    /// further try is worth it. `chance`, from 0 to 1, spreads those who failed together over the second half of the wait.
    pub fn failed(&mut self, asked: Duration, chance: f64) -> Option<Duration> {
        if self.tries >= self.limit {
            return None;
        }
        let doublings = if self.immediate {
            self.tries.checked_sub(1)
        } else {
            Some(self.tries)
        };
        self.tries += 1;
        let wait = doublings.map_or(Duration::ZERO, |doublings| {
            let full = FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
            full.min(LONGEST)
                .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
        });
        Some(wait.max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(mut backoff: Backoff, chance: f64) -> Vec<u128> {
        let next = || backoff.failed(Duration::ZERO, chance);
        std::iter::from_fn(next)
            .map(|wait| wait.as_millis())
            .collect()
    }

    #[test]
    fn the_first_try_after_progress_is_at_once_and_the_waits_double_to_ten_seconds() {
        assert_eq!(
            waits(Backoff::proven(), 1.0),
            [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
    }

    #[test]
    fn what_never_worked_is_tried_again_twice() {
        assert_eq!(waits(Backoff::untried(2), 1.0), [100, 200]);
    }

    #[test]
    fn chance_takes_up_to_half_of_a_wait_away() {
        assert_eq!(waits(Backoff::untried(2), 0.0), [50, 100]);
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked_for() {
        let mut backoff = Backoff::proven();
        let asked = Duration::from_secs(3);
        assert_eq!(backoff.failed(asked, 0.5), Some(asked));
    }
}

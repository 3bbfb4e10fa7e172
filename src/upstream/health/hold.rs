//! A `429`: how long nothing is asked after it (DESIGN 8). Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::gate::{Gate, Probe};

/// What is asked of an upstream that limits our rate: nothing for as long as it says, then one request to see.
#[derive(Debug)]
pub(super) struct Hold {
    gate: Gate,
    unasked: Backoff,
}

/// Longest time that `Retry-After` is believed; then it is tried.
pub(super) const LONGEST: Duration = Duration::from_mins(5);
const SHORTEST: Duration = Duration::from_secs(1);

impl Hold {
    /// Of all requests. Without `Retry-After` it is short at first: such limits are by the second or minute.
    pub(super) fn of_everything() -> Self {
        Self {
            gate: Gate::default(),
            unasked: Backoff::new(Duration::from_secs(5), LONGEST),
        }
    }

    /// Of a pull limit, which is by the hour: a minute without `Retry-After`.
    pub(super) fn of_pulls() -> Self {
        Self {
            gate: Gate::default(),
            unasked: Backoff::new(Duration::from_mins(1), LONGEST),
        }
    }

    /// As [`Gate::left`].
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.gate.left(now)
    }

    /// As [`Gate::enter`].
    pub(super) fn enter(&mut self, now: Instant) -> Result<Option<Probe>, Duration> {
        self.gate.enter(now)
    }

    /// As [`Gate::abandon`].
    pub(super) fn abandon(&mut self, probe: Probe) {
        self.gate.abandon(probe);
    }

    /// Whether requests are held.
    pub(super) fn is_shut(&self) -> bool {
        self.gate.is_shut()
    }

    /// A request was refused for our rate; gives how long requests are held now.
    pub(super) fn limited(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        let unasked = self.unasked;
        self.gate.shut(now, |renewed| {
            let wait = retry_after.unwrap_or_else(|| unasked.wait(renewed));
            wait.clamp(SHORTEST, LONGEST)
        })
    }

    /// A request got another answer than that.
    pub(super) fn answered(&mut self, probe: Option<Probe>) {
        // The answer to what was sent before the hold does not end it.
        if self.gate.is_probed_by(probe) {
            self.gate.open();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_asked_for_is_honoured_between_a_second_and_five_minutes() {
        for (asked, held) in [(0, 1), (37, 37), (300, 300), (86_400, 300)] {
            let mut hold = Hold::of_everything();
            let now = Instant::now();
            assert_eq!(hold.limited(now, Some(seconds(asked))), seconds(held));
            assert_eq!(hold.left(now), Some(seconds(held)));
        }
    }

    #[test]
    fn without_a_wish_the_hold_grows_with_each_probe_that_is_refused() {
        for (mut hold, expected) in [
            (Hold::of_everything(), [5, 10, 20, 40, 80, 160, 300, 300]),
            (Hold::of_pulls(), [60, 120, 240, 300, 300, 300, 300, 300]),
        ] {
            let mut now = Instant::now();
            let mut held = Vec::new();
            for _ in 0..expected.len() {
                let time = hold.limited(now, None);
                held.push(time.as_secs());
                now += time;
                assert!(matches!(hold.enter(now), Ok(Some(_))));
            }
            assert_eq!(held, expected);
        }
    }

    #[test]
    fn many_refusals_of_what_was_sent_together_are_one() {
        let (mut hold, now) = (Hold::of_everything(), Instant::now());
        for _ in 0..20 {
            assert_eq!(hold.limited(now, None), seconds(5));
        }
    }

    #[test]
    fn only_the_probe_lifts_it() {
        let (mut hold, now) = (Hold::of_everything(), Instant::now());
        hold.limited(now, Some(seconds(9)));
        hold.answered(None);
        assert!(hold.left(now).is_some());
        let probe = hold.enter(now + seconds(9)).unwrap();
        hold.answered(probe);
        assert!(!hold.is_shut());
    }
}

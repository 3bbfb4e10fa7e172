//! When a host is taken for dead, and for how long. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::Reason;
use super::backoff::Backoff;
use super::gate::{Gate, Probe};

/// Counts the failures of one host in a row, and shuts its gate when there are too many.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    gate: Gate,
    unreachable: u32,
    silent: u32,
    answered: Option<Instant>,
    /// The last failure, in the words of its error.
    last: String,
}

/// Connections in a row that could not be made before no more are tried. Few, since each may cost `connect_timeout`.
pub(super) const MOST_UNREACHABLE: u32 = 3;
/// Requests in a row without any answer. More, since it may be what they ask for that takes long.
pub(super) const MOST_SILENT: u32 = 5;

const REST: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

impl Breaker {
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

    /// Whether the host is taken for dead.
    pub(super) fn is_shut(&self) -> bool {
        self.gate.is_shut()
    }

    /// The last failure.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// The host answered, whatever it said: it is alive.
    pub(super) fn answered(&mut self, now: Instant) {
        self.gate.open();
        (self.unreachable, self.silent) = (0, 0);
        self.answered = Some(now);
    }

    /// A request sent at `began` failed in this way; for how long the host is left alone now, if that is news.
    ///
    /// One sent before the host last answered another says nothing, nor does one from before the gate was shut.
    pub(super) fn failed(
        &mut self,
        reason: Reason,
        began: Instant,
        probe: Option<Probe>,
        now: Instant,
        error: &str,
    ) -> Option<Duration> {
        let is_old = self.answered.is_some_and(|answered| began < answered);
        let is_echo = self.gate.is_shut() && !self.gate.is_probed_by(probe);
        if is_old || is_echo {
            return None;
        }
        error.clone_into(&mut self.last);
        let (count, most) = match reason {
            Reason::Silent => (&mut self.silent, MOST_SILENT),
            _ => (&mut self.unreachable, MOST_UNREACHABLE),
        };
        *count = count.saturating_add(1);
        let is_too_much = *count >= most || self.gate.is_shut();
        is_too_much.then(|| self.gate.shut(now, |renewed| REST.jittered(renewed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn shut(breaker: &mut Breaker, now: Instant) {
        for _ in 0..MOST_UNREACHABLE {
            breaker.failed(Reason::Unreachable, now, None, now, "refused");
        }
        assert!(breaker.is_shut());
    }

    #[test]
    fn it_shuts_after_some_failures_in_a_row_and_later_where_nothing_answers() {
        for (reason, most) in [
            (Reason::Unreachable, MOST_UNREACHABLE),
            (Reason::Silent, MOST_SILENT),
        ] {
            let (mut breaker, now) = (Breaker::default(), Instant::now());
            for _ in 1..most {
                assert_eq!(breaker.failed(reason, now, None, now, "x"), None);
            }
            breaker.answered(now);
            for _ in 1..most {
                assert_eq!(breaker.failed(reason, now, None, now, "x"), None);
            }
            assert!(breaker.failed(reason, now, None, now, "x").is_some());
            assert!(breaker.left(now).is_some());
        }
    }

    #[test]
    fn failures_of_what_was_sent_before_the_last_answer_do_not_count() {
        let (mut breaker, began) = (Breaker::default(), Instant::now());
        breaker.answered(began + Duration::from_secs(1));
        for _ in 0..9 {
            let late = began + Duration::from_secs(20);
            assert_eq!(breaker.failed(Reason::Silent, began, None, late, "x"), None);
        }
        assert!(!breaker.is_shut());
    }

    #[test]
    fn each_failed_probe_doubles_the_rest_up_to_half_a_minute() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        shut(&mut breaker, now);
        let mut rests = Vec::new();
        for _ in 0..8 {
            now += HOUR;
            let probe = breaker.enter(now).unwrap();
            let rest = breaker.failed(Reason::Unreachable, now, probe, now, "x");
            rests.push(rest.unwrap().as_secs_f64());
        }
        for (rest, most) in rests.iter().zip([2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
            assert!((most * 0.75..=most).contains(rest), "{rests:?}");
        }
    }

    #[test]
    fn what_was_sent_before_it_shut_neither_prolongs_the_rest_nor_ends_the_probe() {
        let (mut breaker, began) = (Breaker::default(), Instant::now());
        shut(&mut breaker, began);
        let now = began + HOUR;
        assert!(breaker.enter(now).unwrap().is_some());
        let echo = breaker.failed(Reason::Unreachable, began, None, now, "x");
        assert_eq!(echo, None);
        assert!(breaker.enter(now).is_err(), "the probe is still out");
    }

    #[test]
    fn an_answer_opens_it_and_the_next_rest_is_short_again() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        shut(&mut breaker, now);
        let probe = breaker.enter(now + HOUR).unwrap();
        breaker.failed(Reason::Unreachable, now, probe, now + HOUR, "x");
        breaker.answered(now + HOUR);
        assert_eq!(breaker.left(now + HOUR), None);
        shut(&mut breaker, now + HOUR);
        assert!(breaker.left(now + HOUR).unwrap() <= Duration::from_secs(1));
    }
}

//! How often a small request is tried.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use crate::upstream::Error;
use crate::upstream::failure::Failure;

/// The tries of one question whose answer is small. Repeats none that was answered, and waits beyond no deadline.
#[derive(Debug)]
pub(in crate::upstream) struct Tries {
    deadline: Instant,
    failed: u32,
}

/// Tries after the first.
const MORE: u32 = 2;
const PAUSE: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(1));
/// What a try needs at least; with less time left there is none.
const WORTHWHILE: Duration = Duration::from_millis(250);

impl Tries {
    /// Tries until `deadline`.
    pub(in crate::upstream) fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            failed: 0,
        }
    }

    /// Returns when the next try is due; where there is none to be, with the error of this one.
    pub(in crate::upstream) async fn after(&mut self, failure: Failure) -> Result<(), Error> {
        let Some(at_least) = failure.again_after().filter(|_| self.failed < MORE) else {
            return Err(failure.error);
        };
        let due = Instant::now() + PAUSE.jittered(self.failed).max(at_least);
        if due + WORTHWHILE > self.deadline {
            return Err(failure.error);
        }
        self.failed += 1;
        tracing::debug!(error = %failure.error, "asking once more");
        sleep_until(due).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::failure::Kind;

    fn failure(kind: Kind) -> Failure {
        Failure::unavailable(kind, "no")
    }

    async fn tries(kind: Kind, within: Duration) -> (u32, Duration) {
        let began = Instant::now();
        let mut tries = Tries::until(began + within);
        let mut count = 1;
        while tries.after(failure(kind)).await.is_ok() {
            count += 1;
        }
        (count, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_broke_is_tried_three_times_with_growing_pauses() {
        for kind in [Kind::Broken, Kind::Reset, Kind::Failing(None)] {
            let (count, took) = tries(kind, Duration::from_secs(20)).await;
            assert_eq!(count, 3, "{kind:?}");
            let range = Duration::from_millis(560)..Duration::from_millis(760);
            assert!(range.contains(&took), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_end_better_is_tried_once() {
        for kind in [
            Kind::Unreachable,
            Kind::Silent,
            Kind::Hurried,
            Kind::Shut,
            Kind::Final,
        ] {
            assert_eq!(tries(kind, Duration::from_secs(20)).await.0, 1, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_asked_for_is_kept_if_it_fits_and_else_there_is_no_other_try() {
        let asks = Kind::Failing(Some(Duration::from_secs(8)));
        let (count, took) = tries(asks, Duration::from_secs(20)).await;
        assert_eq!((count, took.as_secs()), (3, 16));
        let (count, took) = tries(asks, Duration::from_secs(8)).await;
        assert_eq!((count, took), (1, Duration::ZERO));
    }
}

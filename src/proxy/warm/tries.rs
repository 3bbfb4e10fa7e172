//! What a failure means for one who has time: another try, or a problem to be told.

use std::time::Duration;

use crate::flight::Backoff;
use crate::proxy::Error;
use crate::proxy::blobs::Unkept;
use crate::upstream;

use super::model::WarmProblem;

/// Further tries of what failed.
const TRIES: u32 = 10;
/// Between two tries at least: a failed fetch answers newcomers for a second.
const AT_LEAST: Duration = Duration::from_millis(1500);
/// Longest wait that an upstream may ask for.
const LONGEST: Duration = Duration::from_mins(5);

/// The tries of one part.
pub(super) struct Tries {
    backoff: Backoff,
    was_corrupt: bool,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self {
            backoff: Backoff::untried(TRIES),
            was_corrupt: false,
        }
    }

    /// How long to wait before the next try; `None`: it is not worth any.
    pub(super) fn failed(&mut self, error: &Unkept) -> Option<Duration> {
        let Unkept::Error(error) = error else {
            return None;
        };
        let asked = match error {
            Error::Upstream(upstream::Error::RateLimited { retry_after, .. }) => {
                retry_after.unwrap_or(AT_LEAST).max(AT_LEAST)
            }
            // One that was stopped by others is begun anew.
            Error::Upstream(upstream::Error::Unavailable { .. })
            | Error::SlowDisk
            | Error::Stopping => AT_LEAST,
            // Another source, or the same with the right bytes. Not again and again: all of it is fetched each time.
            Error::Upstream(upstream::Error::Corrupt { .. }) if !self.was_corrupt => {
                self.was_corrupt = true;
                AT_LEAST
            }
            _ => return None,
        };
        if asked > LONGEST {
            return None;
        }
        self.backoff.failed(asked, fastrand::f64())
    }
}

/// A failure as it is told.
pub(super) fn problem(part: &str, error: &Unkept) -> WarmProblem {
    let reason = match error {
        Unkept::Error(error) => error.reason(),
        Unkept::Uncached(reason) => reason.as_str(),
    };
    let message = match error {
        Unkept::Error(Error::Upstream(upstream::Error::RateLimited {
            retry_after: Some(wait),
            message,
        })) => format!(
            "{message}; it asks to be left alone for {} s",
            wait.as_secs()
        ),
        other => other.to_string(),
    };
    WarmProblem {
        part: part.to_owned(),
        reason: reason.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{BypassReason, What};

    fn limited(retry_after: Option<u64>) -> Unkept {
        let error = upstream::Error::RateLimited {
            retry_after: retry_after.map(Duration::from_secs),
            message: "slowly".to_owned(),
        };
        Unkept::Error(error.into())
    }

    fn of(error: upstream::Error) -> Unkept {
        Unkept::Error(error.into())
    }

    #[test]
    fn what_an_upstream_asks_for_is_waited_as_long_as_that_is_bearable() {
        assert_eq!(
            Tries::new().failed(&limited(Some(90))),
            Some(Duration::from_secs(90))
        );
        assert_eq!(Tries::new().failed(&limited(Some(0))), Some(AT_LEAST));
        assert!(Tries::new().failed(&limited(None)) >= Some(AT_LEAST));
        assert_eq!(Tries::new().failed(&limited(Some(301))), None);
        let told = problem("v1", &limited(Some(301))).message;
        assert!(told.contains("301 s"), "{told}");
    }

    #[test]
    fn tries_come_to_an_end_and_what_another_would_not_mend_has_none() {
        let message = || "no".to_owned();
        let mut tries = Tries::new();
        let broken = of(upstream::Error::Unavailable { message: message() });
        let count = std::iter::from_fn(|| tries.failed(&broken))
            .take(99)
            .count();
        assert_eq!(count, TRIES as usize);
        let corrupt = of(upstream::Error::Corrupt { message: message() });
        let mut tries = Tries::new();
        assert!(tries.failed(&corrupt).is_some());
        assert!(tries.failed(&corrupt).is_none());
        let what = What::Manifest;
        let absent = Error::NotFound {
            what,
            message: message(),
        };
        for error in [
            Unkept::Error(absent),
            Unkept::Uncached(BypassReason::NoRoom),
        ] {
            assert_eq!(Tries::new().failed(&error), None);
        }
    }
}

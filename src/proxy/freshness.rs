//! How long an answer holds, and when an old one is better than none. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::TagPolicy;
use crate::upstream;

use super::{Error, StaleReason};

/// What may be done with a stored answer before anyone is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It holds.
    Fresh,
    /// It is served, and asked about behind the client's back.
    Behind,
    /// It is asked about first.
    Old,
}

/// Whether less than `span` lies between the two, whichever is first: a clock that was set back makes nothing fresh for
/// longer than it was meant to be.
pub(super) fn within(since: Timestamp, now: Timestamp, span: Duration) -> bool {
    since.duration_since(now).unsigned_abs() < span
}

/// How old an answer is; zero where the clock was set back.
pub(super) fn age(validated: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(validated)).unwrap_or(Duration::ZERO)
}

/// Judges an answer that was last known to be true at `validated`.
pub(super) fn judge(policy: &TagPolicy, validated: Timestamp, now: Timestamp) -> Freshness {
    let behind = policy.ttl.saturating_add(policy.stale_while_revalidate);
    if within(validated, now, policy.ttl) {
        Freshness::Fresh
    } else if !policy.stale_while_revalidate.is_zero() && within(validated, now, behind) {
        Freshness::Behind
    } else {
        Freshness::Old
    }
}

/// Whether an answer may be served past its time for this reason.
pub(super) fn may_serve(
    policy: &TagPolicy,
    reason: StaleReason,
    validated: Timestamp,
    now: Timestamp,
) -> bool {
    let window = match reason {
        StaleReason::Offline => Duration::MAX,
        StaleReason::Revalidating => policy.stale_while_revalidate,
        StaleReason::Unreachable | StaleReason::RateLimited | StaleReason::SlowDisk => {
            policy.stale_if_error
        }
        StaleReason::Gone => policy.stale_if_gone,
        StaleReason::Denied => policy.stale_if_denied,
    };
    age(validated, now) < policy.ttl.saturating_add(window)
}

/// Which reason to serve something old a failure is; `None`: none at all.
pub(super) fn stale_reason(error: &Error) -> Option<StaleReason> {
    match error {
        Error::NotFound { .. } => Some(StaleReason::Gone),
        Error::NotCached { .. } => Some(StaleReason::Offline),
        Error::Upstream(error) => Some(match error {
            upstream::Error::NotFound { .. } => StaleReason::Gone,
            upstream::Error::Offline => StaleReason::Offline,
            upstream::Error::Denied { .. } => StaleReason::Denied,
            upstream::Error::RateLimited { .. } => StaleReason::RateLimited,
            upstream::Error::Unavailable { .. }
            | upstream::Error::Refused { .. }
            | upstream::Error::Invalid { .. }
            | upstream::Error::Corrupt { .. }
            | upstream::Error::Loop => StaleReason::Unreachable,
        }),
        Error::SlowDisk => Some(StaleReason::SlowDisk),
        Error::Store(_) | Error::Stopping => None,
    }
}

/// How an upstream takes something away that it had. Kept with what is stored, since an outage that follows is no reason
/// to serve what was taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::proxy) enum Withdrawn {
    /// It has it no longer.
    Gone,
    /// It shows it to us no longer.
    Denied,
}

impl Withdrawn {
    /// What a failure says of something stored; nothing where the upstream did not get to it.
    pub(super) fn by(failure: &Error) -> Option<Self> {
        match stale_reason(failure)? {
            StaleReason::Gone => Some(Self::Gone),
            StaleReason::Denied => Some(Self::Denied),
            _ => None,
        }
    }

    /// Why something is served stale that was, or was not, taken away, where the present reason is this one.
    pub(super) fn reason(withdrawn: Option<Self>, present: StaleReason) -> StaleReason {
        match (present, withdrawn) {
            (
                StaleReason::Unreachable | StaleReason::RateLimited | StaleReason::SlowDisk,
                Some(how),
            ) => match how {
                Self::Gone => StaleReason::Gone,
                Self::Denied => StaleReason::Denied,
            },
            _ => present,
        }
    }
}

/// Text of the `Warning` header.
pub(super) fn warning(reason: StaleReason) -> String {
    format!("served stale: {}", reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn policy() -> TagPolicy {
        TagPolicy {
            ttl: MINUTE,
            stale_while_revalidate: MINUTE,
            stale_if_error: 2 * MINUTE,
            stale_if_gone: Duration::MAX,
            stale_if_denied: Duration::ZERO,
            negative_ttl: Duration::from_secs(10),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn an_answer_is_fresh_then_revalidated_behind_then_old() {
        let judged = |seconds| judge(&policy(), at(0), at(seconds));
        assert_eq!(judged(59), Freshness::Fresh);
        assert_eq!(judged(60), Freshness::Behind);
        assert_eq!(judged(119), Freshness::Behind);
        assert_eq!(judged(120), Freshness::Old);
    }

    #[test]
    fn a_ttl_of_zero_is_never_fresh() {
        let policy = TagPolicy {
            ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            ..policy()
        };
        assert_eq!(judge(&policy, at(0), at(0)), Freshness::Old);
    }

    #[test]
    fn a_clock_set_back_gives_age_zero_but_no_endless_freshness() {
        assert_eq!(age(at(100), at(0)), Duration::ZERO);
        assert_eq!(judge(&policy(), at(30), at(0)), Freshness::Fresh);
        assert_eq!(judge(&policy(), at(1_000_000), at(0)), Freshness::Old);
        assert!(may_serve(
            &policy(),
            StaleReason::Unreachable,
            at(1_000_000),
            at(0)
        ));
    }

    #[test]
    fn each_reason_has_its_own_window_past_the_ttl() {
        let may = |reason, seconds| may_serve(&policy(), reason, at(0), at(seconds));
        assert!(may(StaleReason::Unreachable, 179) && !may(StaleReason::Unreachable, 180));
        assert!(may(StaleReason::RateLimited, 179) && !may(StaleReason::RateLimited, 180));
        assert!(may(StaleReason::Denied, 59) && !may(StaleReason::Denied, 60));
        assert!(may(StaleReason::Gone, 900_000_000));
        assert!(may(StaleReason::Offline, 900_000_000));
    }

    #[test]
    fn our_own_end_is_no_reason_to_serve_anything_old() {
        assert_eq!(stale_reason(&Error::Stopping), None);
        assert_eq!(
            stale_reason(&Error::Upstream(upstream::Error::Loop)),
            Some(StaleReason::Unreachable)
        );
    }
}

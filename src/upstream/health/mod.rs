//! What an upstream can take: whom to leave alone, for how long, and how much at once.
//!
//! Owns the breakers and holds of an upstream's hosts (`origins`) and of its credentials' pulls (`pulls`), the places for
//! requests under way (`turns`), and how often a small request is tried (`tries`). What they decide is in `breaker` and
//! `hold`, on top of `gate`, which know neither network nor clock. Sends nothing itself and never changes an answer.
//! Imports the errors, origins and credentials of `upstream`, `config` values and `telemetry`.

mod backoff;
mod breaker;
mod gate;
mod hold;
mod origins;
mod pulls;
mod tries;
mod turns;

use std::time::Duration;

pub(super) use backoff::Backoff;
pub(super) use origins::Origins;
pub(super) use pulls::{PullPass, Pulls};
pub(super) use tries::Tries;
pub(super) use turns::{Load, Turn, Turns};

/// Why a host is left alone. The names are the labels of the metric and the words of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// No connection can be made.
    Unreachable,
    /// It takes connections and answers nothing.
    Silent,
    /// `429`.
    RateLimit,
    /// `429` for the number of manifests that our credential pulled.
    PullLimit,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::RateLimit => "rate_limit",
            Self::PullLimit => "pull_limit",
        }
    }
}

/// Whole seconds, rounded up, for messages.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

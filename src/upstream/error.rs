//! Why an upstream gave no answer, by what the caller can do about it.

use std::time::Duration;

/// Why there is no answer. Cheap enough to clone, since a flight shares one with all its readers.
///
/// Messages never hold a secret: no token, no user information, no query of a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upstream has no such thing: an authoritative `404`.
    #[error("{message}")]
    NotFound {
        /// What the upstream said.
        message: String,
    },
    /// The upstream refuses us: `401` after all that could be tried, or `403`.
    #[error("{message}")]
    Denied {
        /// What was refused, and what to do about it.
        message: String,
        /// Whether our own login was refused, which only the operator can mend.
        ours: bool,
    },
    /// The upstream limits our rate: `429`.
    #[error("{message}")]
    RateLimited {
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
        /// What the upstream said.
        message: String,
    },
    /// No connection, a time-out, a `5xx`, a body that broke off or stalled. Another try later may succeed.
    #[error("{message}")]
    Unavailable {
        /// What failed.
        message: String,
    },
    /// Our own rules forbid what the upstream sent us to.
    #[error("{message}")]
    Refused {
        /// What was refused; names the key to set where the operator may allow it.
        message: String,
        /// The configuration key, or the rule's name where no key lifts it.
        key: &'static str,
    },
    /// An answer that no registry gives: a web page, a body that is too large, a first-schema manifest.
    #[error("{message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// Bytes that do not match the digest they were asked by.
    #[error("{message}")]
    Corrupt {
        /// Which content.
        message: String,
    },
    /// The request has passed through this instance already.
    #[error(
        "the request came back to this instance: an upstream's url leads to Layby itself; correct the upstream's url"
    )]
    Loop,
    /// Layby is offline: nothing was opened.
    #[error("layby is offline and asks no upstream")]
    Offline,
}

impl Error {
    /// Short name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Denied { .. } => "denied",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Invalid { .. } => "invalid",
            Self::Corrupt { .. } => "corrupt",
            Self::Loop => "loop",
            Self::Offline => "offline",
        }
    }

    /// An [`Error::Unavailable`].
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable {
            message: message.into(),
        }
    }

    /// An [`Error::Invalid`].
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid {
            message: message.into(),
        }
    }

    /// An [`Error::Refused`].
    pub(super) fn refused(key: &'static str, message: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            key,
        }
    }
}

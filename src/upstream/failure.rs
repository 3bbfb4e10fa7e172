//! Why one try failed, with what the next step needs to know of it.

use std::time::Duration;

use super::Error;

/// A try that gave no answer, or no usable one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: Error,
    /// How it failed.
    pub(super) kind: Kind,
}

/// How a try failed: what health makes of it, and whether another may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No connection: name, socket, proxy or TLS.
    Unreachable,
    /// A connection that was cut before its TLS stood, as by a load balancer that restarts.
    Reset,
    /// A connection, and then no answer in time.
    Silent,
    /// The caller's time was up before it could be told whether anyone answers.
    Hurried,
    /// A connection that broke, before the head of the answer or within a body that is read whole.
    Broken,
    /// `502`, `503` or `504`, with the wait that it asks for.
    Failing(Option<Duration>),
    /// Nothing was sent: the host is left alone for now.
    Shut,
    /// An answer, or a rule of our own. The same question would end the same.
    Final,
}

impl Failure {
    /// A failure of this kind.
    pub(super) fn new(kind: Kind, error: Error) -> Self {
        Self { error, kind }
    }

    /// [`Error::Unavailable`], in this way.
    pub(super) fn unavailable(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(kind, Error::unavailable(message))
    }

    /// Whether another try of the same may end better, and the least time to wait before it.
    pub(super) fn again_after(&self) -> Option<Duration> {
        match self.kind {
            Kind::Reset | Kind::Broken => Some(Duration::ZERO),
            Kind::Failing(wait) => Some(wait.unwrap_or_default()),
            Kind::Unreachable | Kind::Silent | Kind::Hurried | Kind::Shut | Kind::Final => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(Kind::Final, error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

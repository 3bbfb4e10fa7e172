//! Why an import ends early.

use std::io;

use crate::bundle::Fault;
use crate::proxy::admin::AdminError;

/// How an import ends that is not done.
#[derive(Debug)]
pub(super) enum Halt {
    /// Nobody listens, or Layby stops, or the archive stopped coming: what is here stays for the next time.
    CalledOff(String),
    /// It cannot be done: the cache is as it was.
    Refused(AdminError),
}

impl Halt {
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(AdminError::Failed(message.into()))
    }
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CalledOff(message) => f.write_str(message),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) if is_broken_off(&error) => Self::CalledOff(error.to_string()),
            fault => Self::refused(format!("the archive is refused: {fault}")),
        }
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<AdminError> for Halt {
    fn from(error: AdminError) -> Self {
        Self::Refused(error)
    }
}

/// Whether whoever sends the archive is gone.
fn is_broken_off(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::TimedOut
    )
}

/// So many bytes are missing.
pub(super) fn no_room(missing: u64) -> Halt {
    Halt::refused(format!(
        "{missing} bytes are missing for it: evict with `layby gc --to`, remove images with `layby rm`, raise \
         cache.max_size, lower cache.min_free, or free disk space"
    ))
}

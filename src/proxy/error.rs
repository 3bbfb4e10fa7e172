//! Why a request has no content for an answer. `server/reject.rs` turns each into a status and a code.

use std::io;
use std::sync::Arc;

use crate::upstream;

/// Why there is no answer. Cheap to clone, since joined requests share one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The upstream says, or said a moment ago, that there is no such thing.
    #[error("{message}")]
    NotFound {
        /// What was asked.
        what: What,
        /// What the upstream said.
        message: String,
    },
    /// Layby is offline and this is not stored, or not proven to belong to the repository.
    #[error(
        "layby is offline and this is not in its cache; pull it once while online, or turn `offline` off"
    )]
    NotCached {
        /// What was asked.
        what: What,
    },
    /// The upstream gave no answer, and nothing stored may be served instead.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The data directory failed.
    #[error("the data directory cannot be used: {0}; see the log")]
    Store(Arc<io::Error>),
    /// The data directory was searched for too long.
    #[error(
        "the data directory gave no answer in time: its disk hangs or has too much to do; ask again, or look after the disk"
    )]
    SlowDisk,
    /// The fetch ended without a result: Layby is stopping.
    #[error("layby is shutting down; ask again")]
    Stopping,
}

/// What was asked for: which "unknown" an absence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A manifest, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// A repository's list of tags.
    Tags,
    /// A list of referrers.
    Referrers,
}

impl Error {
    /// An upstream's failure to answer for `what`: a `404` becomes [`Error::NotFound`], offline [`Error::NotCached`].
    pub fn from_upstream(what: What, error: upstream::Error) -> Self {
        match error {
            upstream::Error::NotFound { message } => Self::NotFound { what, message },
            upstream::Error::Offline => Self::NotCached { what },
            other => Self::Upstream(other),
        }
    }

    /// Short name for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::NotCached { .. } => "not_cached",
            Self::Upstream(error) => error.reason(),
            Self::Store(_) => "store",
            Self::SlowDisk => "slow_disk",
            Self::Stopping => "stopping",
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

//! What the cache did for an answer: one word for the log, the metric label and `Cache-Status` (RFC 9211).

/// What the cache did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheOutcome {
    /// Answered from what was stored and fresh.
    Hit,
    /// Asked upstream, and what it gave is, or is being, stored.
    Miss,
    /// Asked upstream for an answer that is not stored (a `HEAD`, an error).
    Forwarded,
    /// Joined a fetch that another request had started.
    Collapsed,
    /// The upstream confirmed what was stored.
    Revalidated,
    /// Older than its time to live, for this reason.
    Stale(StaleReason),
    /// Passed through uncached, for this reason.
    Bypass(BypassReason),
    /// A remembered "not found".
    Negative,
}

/// Why an answer past its time was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaleReason {
    /// Within `stale_while_revalidate`; the upstream is being asked.
    Revalidating,
    /// The upstream cannot be reached, is broken or too slow.
    Unreachable,
    /// The upstream limits our rate.
    RateLimited,
    /// The upstream no longer has it.
    Gone,
    /// The upstream denies us.
    Denied,
    /// Our own disk is too slow to take in what the upstream says.
    SlowDisk,
    /// Layby is offline.
    Offline,
}

/// Why a blob was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BypassReason {
    /// Larger than `max_blob_size`.
    TooLarge,
    /// The disk's limits leave no room.
    NoRoom,
    /// The data directory cannot be written.
    DiskFailed,
    /// A digest algorithm that cannot be verified.
    Unverifiable,
}

impl CacheOutcome {
    /// Label in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Forwarded => "forwarded",
            Self::Collapsed => "collapsed",
            Self::Revalidated => "revalidated",
            Self::Stale(_) => "stale",
            Self::Bypass(_) => "bypass",
            Self::Negative => "negative",
        }
    }

    /// Whether the answer is what was stored, whatever had to be asked first.
    pub fn is_stored(self) -> bool {
        matches!(
            self,
            Self::Hit | Self::Revalidated | Self::Stale(_) | Self::Negative
        )
    }

    /// Value of `Cache-Status` (RFC 9211, section 2).
    pub fn cache_status(self) -> &'static str {
        match self {
            Self::Hit => "layby; hit",
            Self::Miss => "layby; fwd=miss; stored",
            Self::Forwarded => "layby; fwd=miss",
            Self::Collapsed => "layby; fwd=miss; collapsed",
            Self::Revalidated => "layby; hit; detail=revalidated",
            Self::Stale(_) => "layby; fwd=stale",
            Self::Bypass(_) => "layby; fwd=bypass",
            Self::Negative => "layby; hit; detail=negative",
        }
    }
}

impl StaleReason {
    /// Label in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revalidating => "revalidating",
            Self::Unreachable => "unreachable",
            Self::RateLimited => "rate_limited",
            Self::Gone => "gone",
            Self::Denied => "denied",
            Self::SlowDisk => "slow_disk",
            Self::Offline => "offline",
        }
    }
}

impl BypassReason {
    /// Label in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::DiskFailed => "disk_failed",
            Self::Unverifiable => "unverifiable",
        }
    }

    /// The same for people, with what can be done about it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::TooLarge => {
                "it is larger than max_blob_size, so it is not stored; raise that in [cache]"
            }
            Self::NoRoom => {
                "there is no room for it; make some, or raise max_size or lower min_free in [cache]"
            }
            Self::DiskFailed => {
                "the data directory cannot be written; see the log, and check the disk"
            }
            Self::Unverifiable => {
                "its digest is of an algorithm that cannot be verified, so it is never stored"
            }
        }
    }
}

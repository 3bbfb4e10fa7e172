//! In which order one looks for a blob, so that no race fetches it twice. Pure; those who look follow it step by step.
//!
//! A newcomer looks into the table, then into the store, then claims. Between its look into the store and its claim, a
//! fetch may have committed and left the table; so the new leader looks into the store once more before it asks
//! upstream. And a leader leaves the table only when its commit is visible, so there is no moment in which a blob is in
//! neither.

/// Where a newcomer looks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Among the fetches under way.
    Table,
    /// Among what is committed.
    Store,
    /// Into the table again, entering itself as the leader if nobody is there.
    Claim,
}

impl Look {
    /// The first look.
    pub(super) const FIRST: Self = Self::Table;

    /// The next look, after one that found nothing.
    pub(super) const fn in_vain(self) -> Self {
        match self {
            Self::Table => Self::Store,
            Self::Store | Self::Claim => Self::Claim,
        }
    }
}

/// What a leader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// Look into the store.
    LookAgain,
    /// Fetch, and verify.
    Fetch,
    /// Make the blob visible in the store.
    Commit,
    /// Give the lease back.
    Leave,
}

impl Duty {
    /// The first duty.
    pub(super) const FIRST: Self = Self::LookAgain;
    /// What follows when the blob was found, or cannot be had.
    pub(super) const OVER: Self = Self::Leave;

    /// What follows when this one is done and did not find the blob committed.
    pub(super) const fn done(self) -> Self {
        match self {
            Self::LookAgain => Self::Fetch,
            Self::Fetch => Self::Commit,
            Self::Commit | Self::Leave => Self::Leave,
        }
    }
}

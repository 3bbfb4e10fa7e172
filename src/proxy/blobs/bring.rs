//! Having a blob in the store for nobody's immediate use: the fetch that a client's request would start or join, waited for
//! until its blob is kept.

use crate::flight::Refusal;
use crate::oci::Digest;
use crate::upstream::Call;

use super::{BlobService, BypassReason, Error, Place, Reached, why_uncached};

/// What it took to have a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Brought {
    /// Nothing: it was here.
    Here,
    /// It was fetched, now or by somebody else at the same time.
    Fetched,
}

/// Why a blob is not in the store.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::proxy) enum Unkept {
    /// There is none to be had.
    #[error(transparent)]
    Error(#[from] Error),
    /// There is, but the store does not take it.
    #[error("{}", .0.in_words())]
    Uncached(BypassReason),
}

impl BlobService {
    /// Has the blob `digest` of `place` stored and proven; returns once it is. Counts as a reader of the whole, so that the
    /// fetch goes on when all clients leave, and if this is dropped as well. Tells `landed` how many bytes of a fetch are here.
    pub(in crate::proxy) async fn bring(
        &self,
        place: &Place,
        digest: &Digest,
        call: &Call,
        landed: impl Fn(u64) + Send,
    ) -> Result<Brought, Unkept> {
        if !digest.is_verifiable() {
            return Err(Unkept::Uncached(BypassReason::Unverifiable));
        }
        let supply = self.supply(place, digest, call)?;
        let refusal = match self.reach(place, &supply, None, call).await? {
            Reached::Stored(_) => return Ok(Brought::Here),
            // Only parts are asked for by their place.
            Reached::Sized(_) => return Err(Error::Stopping.into()),
            Reached::Flying { handle, .. } => match handle.kept(landed).await {
                Ok(()) => return Ok(Brought::Fetched),
                Err(failure) => Refusal::Failed(failure),
            },
            Reached::Refused(refusal) => refusal,
        };
        // The answer that came with it, if any, is dropped: nobody reads it.
        let (reason, _) = why_uncached(place, refusal)?;
        Err(Unkept::Uncached(reason))
    }
}

//! Blobs: stored, under way, to be fetched, or passed by the store.
//!
//! Decides by what right a repository gets a digest: a proof on record, the answer of its own upstream repository to this very
//! request, or a proof asked for now. The fetching is `flight/`'s.

mod bypass;

use std::sync::Arc;

use crate::flight::ports::{Blobs, BoxFuture, Chunk, FetchError, Fetched, Source};
use crate::flight::{Failure, Flights, Handle, Head, Key, Opened, Reader, Refusal, Uncached, Wish};
use crate::oci::Digest;
use crate::telemetry::Metrics;
use crate::upstream::{self, Call};

use super::membership::Membership;
use super::{
    BlobAnswer, BlobContent, BlobReader, BlobUse, BrokenBody, BypassReason, CacheOutcome, Error,
    Place, What,
};
use bypass::Bypass;

/// A flight that was given up in the moment it was joined is not there any more at the next look.
const ATTEMPTS: usize = 4;

/// Makes sources of blobs.
pub(super) trait Sources: Send + Sync + std::fmt::Debug {
    /// Where `place` gets `digest` from.
    fn source(&self, place: &Place, digest: &Digest, call: &Call)
    -> Result<Arc<dyn Source>, Error>;
}

/// Answers for blobs.
#[derive(Debug)]
pub(super) struct BlobService {
    pub(super) flights: Arc<Flights>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) membership: Arc<Membership>,
    pub(super) sources: Arc<dyn Sources>,
    pub(super) metrics: Arc<Metrics>,
}

impl BlobService {
    /// The blob `digest` of `place`.
    pub(super) async fn blob(
        &self,
        place: &Place,
        digest: &Digest,
        wanted: BlobUse,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        match wanted {
            BlobUse::Head => self.head(place, digest, call).await,
            BlobUse::Full | BlobUse::Ranged if !digest.is_verifiable() => {
                self.pass_by(place, digest, BypassReason::Unverifiable, None, call)
                    .await
            }
            BlobUse::Full => self.open(place, digest, true, call).await,
            BlobUse::Ranged => self.open(place, digest, false, call).await,
        }
    }

    /// The size, without fetching anything that was not asked for.
    async fn head(&self, place: &Place, digest: &Digest, call: &Call) -> Result<BlobAnswer, Error> {
        let stored = self.blobs.open(digest).await?;
        let proven = self.membership.is_proven(place, digest).await;
        if let (Some(blob), true) = (&stored, proven) {
            return Ok(BlobAnswer::head(blob.len(), CacheOutcome::Hit));
        }
        let key = Key {
            upstream: place.upstream.clone(),
            digest: digest.clone(),
        };
        if let (true, Some(len)) = (proven, self.flights.size_of(&key)) {
            return Ok(BlobAnswer::head(len, CacheOutcome::Collapsed));
        }
        let proof = self.membership.prove(place, digest, call).await?;
        let len = stored.map_or(proof.len, |blob| blob.len());
        Ok(BlobAnswer::head(len, CacheOutcome::Forwarded))
    }

    async fn open(
        &self,
        place: &Place,
        digest: &Digest,
        full: bool,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        let mut wish = Wish {
            key: Key {
                upstream: place.upstream.clone(),
                digest: digest.clone(),
            },
            source: self.sources.source(place, digest, call)?,
            proven: self.membership.is_proven(place, digest).await,
            full,
        };
        for _ in 0..ATTEMPTS {
            let (handle, led) = match self.flights.open(&wish).await? {
                Opened::Stored(blob) => return Ok(BlobAnswer::stored(blob, CacheOutcome::Hit)),
                Opened::NeedsProof => {
                    // Another request may have proven it since.
                    if !self.membership.is_proven(place, digest).await {
                        self.membership.prove(place, digest, call).await?;
                    }
                    wish.proven = true;
                    continue;
                }
                Opened::Flight { handle, led } => (handle, led),
            };
            match handle.head(call.deadline).await {
                Ok(Head::Fetching(len)) => {
                    let outcome = if led {
                        CacheOutcome::Miss
                    } else {
                        CacheOutcome::Collapsed
                    };
                    return Ok(BlobAnswer::new(
                        len,
                        outcome,
                        Arc::new(FlightContent(handle)),
                    ));
                }
                Ok(Head::Stored(blob)) => {
                    // Another flight had committed it: nothing was asked for us, so nothing is proven yet.
                    if !wish.proven {
                        self.membership.prove(place, digest, call).await?;
                    }
                    return Ok(BlobAnswer::stored(blob, CacheOutcome::Hit));
                }
                Err(Refusal::Failed(Failure::Aborted)) => {}
                Err(refusal) => return self.refused(place, digest, refusal, call).await,
            }
        }
        Err(Error::Stopping)
    }

    /// What is left when the flight has nothing for this client.
    async fn refused(
        &self,
        place: &Place,
        digest: &Digest,
        refusal: Refusal,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        match refusal {
            Refusal::Source(error) | Refusal::Failed(Failure::Source(error)) => {
                Err(Error::from_upstream(What::Blob, upstream_error(&error)))
            }
            Refusal::Failed(Failure::Corrupt(message)) => {
                Err(Error::Upstream(upstream::Error::Corrupt {
                    message: message.to_string(),
                }))
            }
            Refusal::Failed(Failure::Store(_)) => {
                self.pass_by(place, digest, BypassReason::DiskFailed, None, call)
                    .await
            }
            Refusal::Failed(Failure::Bypass(why, answer)) => {
                let reason = match why {
                    Uncached::TooLarge => BypassReason::TooLarge,
                    Uncached::NoRoom => BypassReason::NoRoom,
                };
                let answer = answer.lock().take();
                self.pass_by(place, digest, reason, answer, call).await
            }
            Refusal::Failed(Failure::Aborted) => Err(Error::Stopping),
            Refusal::TimedOut => Err(Error::Upstream(upstream::Error::Unavailable {
                message: format!("{} did not answer in time", place.upstream),
            })),
        }
    }

    /// Streams the blob from the upstream past the store. `answer` is one that was asked for already.
    async fn pass_by(
        &self,
        place: &Place,
        digest: &Digest,
        reason: BypassReason,
        answer: Option<Fetched>,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        let source = self.sources.source(place, digest, call)?;
        let answer = match answer {
            Some(answer) => answer,
            None => source
                .fetch(None, call.deadline)
                .await
                .map_err(|error| Error::from_upstream(What::Blob, upstream_error(&error)))?,
        };
        if answer.total == Some(0) && digest.is_verifiable() && !is_empty(digest) {
            // Nothing would be left to hold back from the client.
            self.metrics.upstream.verify_failed(place.upstream.as_str());
            return Err(Error::Upstream(upstream::Error::Corrupt {
                message: format!("{} sent no bytes for {digest}", place.upstream),
            }));
        }
        self.metrics.cache.bypassed(reason.as_str());
        tracing::warn!(
            upstream = %place.upstream, repository = %place.repository, %digest,
            reason = reason.as_str(), "a blob passes through uncached"
        );
        let len = answer.total;
        let content = Bypass::new(source, digest.clone(), answer);
        Ok(BlobAnswer::new(
            len,
            CacheOutcome::Bypass(reason),
            Arc::new(content),
        ))
    }
}

/// What an upstream said, behind the trait that `flight` sees.
fn upstream_error(error: &FetchError) -> upstream::Error {
    match error
        .as_any()
        .downcast_ref::<super::adapt::UpstreamFailure>()
    {
        Some(failure) => failure.0.clone(),
        None => upstream::Error::Unavailable {
            message: error.to_string(),
        },
    }
}

/// A blob that is being fetched.
#[derive(Debug)]
struct FlightContent(Handle);

impl BlobContent for FlightContent {
    fn reader(&self, range: Option<std::ops::Range<u64>>) -> Box<dyn BlobReader> {
        Box::new(FlightReader(self.0.reader(range)))
    }
}

struct FlightReader(Reader);

impl BlobReader for FlightReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(async {
            let chunk = self.0.next().await?;
            Some(chunk.map_err(|failure| BrokenBody {
                reason: match &failure {
                    Failure::Source(error) => error.reason(),
                    Failure::Corrupt(_) => "corrupt",
                    Failure::Store(_) => "disk",
                    Failure::Bypass(..) | Failure::Aborted => "aborted",
                },
                message: failure.to_string(),
            }))
        })
    }

    fn source(&self) -> &'static str {
        "flight"
    }
}

/// Whether this is the digest of no bytes.
fn is_empty(digest: &Digest) -> bool {
    Digest::of(digest.algorithm(), &[]).as_ref() == Some(digest)
}

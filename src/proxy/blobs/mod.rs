//! Blobs: stored, under way, to be fetched, or passed by the store.
//!
//! Decides by what right a repository gets a digest: a proof on record, the answer of its own upstream repository to this very
//! request, or a proof asked for now. The fetching is `flight/`'s.

mod bring;
mod bypass;
mod content;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::flight::ports::{Blob, Blobs, FetchError, Fetched, Pace, Source};
use crate::flight::{
    Failure, Flights, Handle, Head, Key, Look, Opened, Refusal, Uncached, Wanted, Wish,
};
use crate::oci::{Digest, RangeSpec, Ranges};
use crate::telemetry::Metrics;
use crate::upstream::{self, Call};

use super::membership::{Membership, OnRecord};
use super::{BlobAnswer, BlobUse, BypassReason, CacheOutcome, Error, Place, What};
pub(super) use bring::{Brought, Unkept};
use bypass::{Bypass, Supply};
use content::FlightContent;

/// A flight that was given up in the moment it was joined is not there any more at the next look.
const ATTEMPTS: usize = 4;
/// Most sizes in memory.
const SIZES: u64 = 16_384;
/// How long a size is believed.
const SIZES_LAST: Duration = Duration::from_secs(600);

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
    pub(super) sizes: Sizes,
    /// For the head of each answer that is asked for after the client's status line.
    pub(super) header_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
}

/// What is to be had of a blob that a repository has.
enum Reached {
    /// All of it.
    Stored(Arc<dyn Blob>),
    /// It is being fetched.
    Flying {
        handle: Handle,
        len: Option<u64>,
        led: bool,
    },
    /// Nothing, unless it passes the store by.
    Refused(Refusal),
    /// Its size, which was all that was needed.
    Sized(u64),
}

/// Sizes of blobs that were seen but not stored, so that a client which picks a blob to pieces costs one `HEAD`, not one for
/// each piece. Only hints: what is fetched tells its size itself.
#[derive(Debug, Clone)]
pub(super) struct Sizes(Cache<Key, u64>);

impl Default for Sizes {
    fn default() -> Self {
        let sizes = Cache::builder()
            .max_capacity(SIZES)
            .time_to_live(SIZES_LAST)
            .eviction_policy(EvictionPolicy::lru());
        Self(sizes.build())
    }
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
            BlobUse::Full | BlobUse::Ranged(_) if !digest.is_verifiable() => {
                let supply = self.supply(place, digest, call)?;
                self.pass_by(place, supply, BypassReason::Unverifiable, None, call)
                    .await
            }
            BlobUse::Full => self.open(place, digest, None, call).await,
            BlobUse::Ranged(spec) => self.open(place, digest, Some(&spec), call).await,
        }
    }

    /// The size, without fetching anything that was not asked for.
    async fn head(&self, place: &Place, digest: &Digest, call: &Call) -> Result<BlobAnswer, Error> {
        let known = self.membership.on_record(place, digest).await;
        let proven = known.is_some();
        let mut stored = self.blobs.open(digest).await?;
        if let Some(blob) = &stored
            && !self.is_whole(&**blob, digest, known).await?
        {
            stored = None;
        }
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

    /// All of the blob, or the parts that `spec` tells.
    async fn open(
        &self,
        place: &Place,
        digest: &Digest,
        spec: Option<&RangeSpec>,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        let supply = self.supply(place, digest, call)?;
        match self.reach(place, &supply, spec, call).await? {
            Reached::Stored(blob) => Ok(BlobAnswer::stored(blob, CacheOutcome::Hit)),
            Reached::Flying { handle, len, led } => {
                Ok(self.flying(place, supply, handle, len, led))
            }
            Reached::Refused(refusal) => self.refused(place, supply, refusal, call).await,
            Reached::Sized(len) => Ok(BlobAnswer::head(len, CacheOutcome::Forwarded)),
        }
    }

    /// The blob, or a place in its fetch, for one who has shown that `place` has it.
    async fn reach(
        &self,
        place: &Place,
        supply: &Supply,
        spec: Option<&RangeSpec>,
        call: &Call,
    ) -> Result<Reached, Error> {
        let digest = &supply.digest;
        let key = Key {
            upstream: place.upstream.clone(),
            digest: digest.clone(),
        };
        let wanted = match spec {
            None => Wanted::Whole,
            Some(spec) => {
                let known = self.sizes.0.get(&key).and_then(|len| parts(spec, len));
                known.unwrap_or(Wanted::Parts)
            }
        };
        let (known, mut look) = self.look(place, &key, &wanted).await?;
        let mut wish = Wish {
            key,
            source: Arc::clone(&supply.source),
            proven: known.is_some(),
            wanted,
        };
        for _ in 0..ATTEMPTS {
            let (handle, led) = match self.flights.open(&wish, look.take()).await? {
                Opened::Stored(blob) => {
                    if self.is_whole(&*blob, digest, known).await? {
                        return Ok(Reached::Stored(blob));
                    }
                    continue;
                }
                Opened::NeedsProof => {
                    self.need_proof(place, &wish.key, call).await?;
                    wish.proven = true;
                    continue;
                }
                Opened::NeedsSize => {
                    if let Some(len) = self.size_up(place, &mut wish, spec, call).await? {
                        return Ok(Reached::Sized(len));
                    }
                    continue;
                }
                Opened::Flight { handle, led } => (handle, led),
            };
            match handle.head(call.deadline).await {
                Ok(Head::Fetching(len)) => {
                    if let Some(len) = len {
                        self.sizes.0.insert(wish.key, len);
                    }
                    return Ok(Reached::Flying { handle, len, led });
                }
                Ok(Head::Stored(blob)) => {
                    // Another flight had committed it: nothing was asked for us, so nothing is proven yet.
                    if !wish.proven {
                        self.need_proof(place, &wish.key, call).await?;
                    }
                    return Ok(Reached::Stored(blob));
                }
                Err(Refusal::Failed(Failure::Aborted)) => {}
                // It may have the blob by an earlier proof, which was not looked for, and read what others bring.
                Err(Refusal::Source(_))
                    if !wish.proven && self.membership.is_proven(place, digest).await =>
                {
                    wish.proven = true;
                }
                Err(refusal) => {
                    if contradicts(&refusal) {
                        self.sizes.0.invalidate(&wish.key);
                    }
                    return Ok(Reached::Refused(refusal));
                }
            }
        }
        Err(Error::Stopping)
    }

    /// What is on record of a blob, and what the store has of it.
    async fn look(
        &self,
        place: &Place,
        key: &Key,
        wanted: &Wanted,
    ) -> io::Result<(Option<OnRecord>, Option<Look>)> {
        if *wanted == Wanted::Whole
            && let Some(look) = self.flights.look_in_memory(key)
        {
            // The upstream is asked for all of it in any case; what it says is a proof, or has the one on disk looked for.
            return Ok((self.membership.in_memory(place, &key.digest), Some(look)));
        }
        // One after the other, the two looks at the disk would make the client wait for both.
        let (known, look) = tokio::join!(
            self.membership.on_record(place, &key.digest),
            self.flights.look(key)
        );
        Ok((known, look?))
    }

    /// Asks the upstream whether the repository has the blob, unless that is on record by now.
    async fn need_proof(&self, place: &Place, key: &Key, call: &Call) -> Result<(), Error> {
        if !self.membership.is_proven(place, &key.digest).await {
            let proof = self.membership.prove(place, &key.digest, call).await?;
            self.sizes.0.insert(key.clone(), proof.len);
        }
        Ok(())
    }

    /// Whether a stored blob is as long as what was delivered once. The store knows that itself only of what it has seen
    /// in this life: another that lost its end is thrown away, and fetched anew.
    async fn is_whole(
        &self,
        blob: &dyn Blob,
        digest: &Digest,
        known: Option<OnRecord>,
    ) -> io::Result<bool> {
        let Some(size) = known.and_then(|known| known.size) else {
            return Ok(true);
        };
        if blob.len() == size {
            return Ok(true);
        }
        tracing::warn!(
            %digest, size_bytes = blob.len(), expected_bytes = size,
            "a stored blob has lost its end and is thrown away, check the disk"
        );
        self.membership.discard(digest, blob.len()).await?;
        Ok(false)
    }

    fn supply(&self, place: &Place, digest: &Digest, call: &Call) -> Result<Supply, Error> {
        Ok(Supply {
            source: self.sources.source(place, digest, call)?,
            digest: digest.clone(),
            header_timeout: self.header_timeout,
        })
    }

    /// Finds out where in a blob that nobody has or fetches the parts are that are wanted. Asks for the size, which is the
    /// proof too. Returns it if the answer needs no byte.
    async fn size_up(
        &self,
        place: &Place,
        wish: &mut Wish,
        spec: Option<&RangeSpec>,
        call: &Call,
    ) -> Result<Option<u64>, Error> {
        let known = self.sizes.0.get(&wish.key).filter(|_| wish.proven);
        let asked = if let Some(len) = known {
            Ok(len)
        } else {
            let proof = self.membership.prove(place, &wish.key.digest, call).await;
            proof.map(|proof| proof.len)
        };
        let len = match asked {
            Ok(len) => len,
            // It tells the size with the blob, or refuses that too.
            Err(Error::Upstream(
                upstream::Error::Denied { .. } | upstream::Error::Invalid { .. },
            )) => {
                wish.wanted = Wanted::PartsSomewhere;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        wish.proven = true;
        self.sizes.0.insert(wish.key.clone(), len);
        match spec.and_then(|spec| parts(spec, len)) {
            Some(wanted) => {
                wish.wanted = wanted;
                Ok(None)
            }
            // The client hears what is wrong with its ranges.
            None => Ok(Some(len)),
        }
    }

    fn flying(
        &self,
        place: &Place,
        supply: Supply,
        handle: Handle,
        len: Option<u64>,
        led: bool,
    ) -> BlobAnswer {
        let outcome = if led {
            CacheOutcome::Miss
        } else {
            CacheOutcome::Collapsed
        };
        let content = FlightContent {
            handle,
            supply,
            place: place.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        BlobAnswer::new(len, outcome, Arc::new(content))
    }

    /// What is left when the flight has nothing for this client.
    async fn refused(
        &self,
        place: &Place,
        supply: Supply,
        refusal: Refusal,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        let (reason, answer) = why_uncached(place, refusal)?;
        self.pass_by(place, supply, reason, answer, call).await
    }

    /// Streams the blob from the upstream past the store. `answer` is one that was asked for already.
    async fn pass_by(
        &self,
        place: &Place,
        supply: Supply,
        reason: BypassReason,
        answer: Option<Fetched>,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        let digest = supply.digest.clone();
        // What has to wait is dropped before it does: it was asked for in the place of a blob that is stored.
        let in_hand = answer.filter(|answer| answer.start == 0);
        let in_hand = in_hand.and_then(|mut answer| answer.body.slow_down().then_some(answer));
        let answer = if let Some(answer) = in_hand {
            answer
        } else {
            let asked = supply.source.fetch(None, Pace::Client, call.deadline);
            let failed = |error| Error::from_upstream(What::Blob, upstream_error(&error));
            asked.await.map_err(failed)?
        };
        if answer.total == Some(0) && digest.is_verifiable() && !is_empty(&digest) {
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
        let content = Bypass::new(supply, answer);
        Ok(BlobAnswer::new(
            len,
            CacheOutcome::Bypass(reason),
            Arc::new(content),
        ))
    }
}

/// What `spec` wants of a blob of `len` bytes; `None`: nothing that can be sent.
fn parts(spec: &RangeSpec, len: u64) -> Option<Wanted> {
    match spec.resolve(len) {
        Ranges::None => Some(Wanted::Whole),
        // Also where the part is all of it: others are likely to come for other parts.
        Ranges::Satisfiable(ranges) => ranges.into_iter().next().map(Wanted::PartsFrom),
        Ranges::Unsatisfiable | Ranges::TooMany => None,
    }
}

/// Whether a flight failed in a way that may come from a wrong size: what was asked for is not there, or other than told.
fn contradicts(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Source(error) | Refusal::Failed(Failure::Source(error)) => {
            matches!(error.reason(), "invalid" | "corrupt")
        }
        Refusal::Failed(why) => matches!(why, Failure::Corrupt(_)),
        Refusal::TimedOut => false,
    }
}

/// Why there is nothing in the store for this client, with the answer that was asked for already; an error where there is
/// nothing at all.
fn why_uncached(place: &Place, refusal: Refusal) -> Result<(BypassReason, Option<Fetched>), Error> {
    Ok(match refusal {
        Refusal::Source(error) | Refusal::Failed(Failure::Source(error)) => {
            return Err(Error::from_upstream(What::Blob, upstream_error(&error)));
        }
        Refusal::Failed(Failure::Corrupt(message)) => {
            return Err(Error::Upstream(upstream::Error::Corrupt {
                message: message.to_string(),
            }));
        }
        Refusal::Failed(Failure::Aborted) => return Err(Error::Stopping),
        Refusal::TimedOut => {
            return Err(Error::Upstream(upstream::Error::Unavailable {
                message: format!("{} did not answer in time", place.upstream),
            }));
        }
        Refusal::Failed(Failure::Store(error)) => (why_failed(&error), None),
        Refusal::Failed(Failure::Wrecked(wreck)) => (why_failed(wreck.error()), None),
        Refusal::Failed(Failure::Bypass(why, answer)) => {
            let reason = match why {
                Uncached::TooLarge => BypassReason::TooLarge,
                Uncached::NoRoom => BypassReason::NoRoom,
            };
            (reason, answer.lock().take())
        }
    })
}

/// What the operator is told of a disk that failed a fetch.
fn why_failed(error: &io::Error) -> BypassReason {
    if error.kind() == io::ErrorKind::StorageFull {
        BypassReason::NoRoom
    } else {
        BypassReason::DiskFailed
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

/// Whether this is the digest of no bytes.
fn is_empty(digest: &Digest) -> bool {
    Digest::of(digest.algorithm(), &[]).as_ref() == Some(digest)
}

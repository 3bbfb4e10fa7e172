//! One repository of an upstream as a source of bytes.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::flight::ports::{
    Body, BoxFuture, FetchError, Fetched, Pace, Remedy, Source, SourceFailure,
};
use crate::oci::Digest;
use crate::proxy::blobs::Sources;
use crate::proxy::membership::Membership;
use crate::proxy::{Error, Place, What};
use crate::upstream::{self, BlobBody, Call, Upstream, Upstreams};

/// Makes sources of the configured upstreams.
#[derive(Debug)]
pub(in crate::proxy) struct UpstreamSources {
    pub(in crate::proxy) upstreams: Arc<Upstreams>,
    pub(in crate::proxy) membership: Arc<Membership>,
}

impl Sources for UpstreamSources {
    fn source(
        &self,
        place: &Place,
        digest: &Digest,
        call: &Call,
    ) -> Result<Arc<dyn Source>, Error> {
        let upstream = self
            .upstreams
            .get(&place.upstream)
            .ok_or_else(|| Error::NotFound {
                what: What::Blob,
                message: format!("there is no upstream {}", place.upstream),
            })?;
        Ok(Arc::new(UpstreamSource {
            upstream: Arc::clone(upstream),
            place: place.clone(),
            digest: digest.clone(),
            via: call.via.clone(),
            membership: Arc::clone(&self.membership),
        }))
    }
}

#[derive(Debug)]
struct UpstreamSource {
    upstream: Arc<Upstream>,
    place: Place,
    digest: Digest,
    via: Option<http::HeaderValue>,
    membership: Arc<Membership>,
}

impl Source for UpstreamSource {
    fn key(&self) -> &str {
        self.place.repository.as_str()
    }

    fn parallel(&self) -> usize {
        usize::try_from(self.upstream.config().parallel).unwrap_or(usize::MAX)
    }

    fn negative_ttl(&self) -> Duration {
        self.upstream.config().tags.negative_ttl
    }

    fn fetch(
        &self,
        range: Option<Range<u64>>,
        pace: Pace,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        Box::pin(async move {
            let call = Call {
                deadline,
                via: self.via.clone(),
            };
            let (upstream, repository) = (&self.upstream, &self.place.repository);
            let answer = match pace {
                Pace::Stored => {
                    upstream
                        .get_blob(repository, &self.digest, range, &call)
                        .await
                }
                Pace::Client => {
                    upstream
                        .pass_blob(repository, &self.digest, range, &call)
                        .await
                }
            };
            let answer = answer.map_err(failure)?;
            Ok(Fetched {
                start: answer.start,
                is_part: answer.is_part,
                total: answer.total,
                body: Box::new(UpstreamBody(answer.body)),
            })
        })
    }

    fn delivered(&self, len: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let recorded = self.membership.record(&self.place, &self.digest, Some(len));
            if let Err(error) = recorded.await {
                tracing::error!(
                    upstream = %self.place.upstream, repository = %self.place.repository,
                    digest = %self.digest, error = %error, "a proof of membership cannot be written"
                );
            }
        })
    }
}

struct UpstreamBody(BlobBody);

impl Body for UpstreamBody {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, FetchError>>> {
        Box::pin(async { self.0.next().await.map(|next| next.map_err(failure)) })
    }

    fn slow_down(&mut self) -> bool {
        self.0.pass()
    }
}

/// An upstream's error as a flight sees it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(in crate::proxy) struct UpstreamFailure(pub(in crate::proxy) upstream::Error);

impl SourceFailure for UpstreamFailure {
    fn reason(&self) -> &'static str {
        self.0.reason()
    }

    fn remedy(&self) -> Remedy {
        use upstream::Error as E;
        match &self.0 {
            E::Unavailable { .. } => Remedy::Again(Duration::ZERO),
            E::RateLimited { retry_after, .. } => {
                Remedy::Again(retry_after.unwrap_or(RATE_LIMITED))
            }
            // Our own login is not refused for its age; asking again and again gets it locked.
            E::Denied { ours: false, .. } => Remedy::Renew,
            E::Denied { .. }
            | E::NotFound { .. }
            | E::Refused { .. }
            | E::Invalid { .. }
            | E::Corrupt { .. }
            | E::Loop
            | E::Offline => Remedy::None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn failure(error: upstream::Error) -> FetchError {
    Arc::new(UpstreamFailure(error))
}

/// For an upstream that limits our rate without saying for how long.
const RATE_LIMITED: Duration = Duration::from_secs(5);

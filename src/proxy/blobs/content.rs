//! A blob that is being fetched, as its clients read it: from the flight, and past the store if the disk fails under it.

use std::ops::Range;
use std::sync::Arc;

use crate::flight::ports::{BoxFuture, Chunk};
use crate::flight::{Failure, Handle, Reader, Wreck};
use crate::proxy::{BlobContent, BlobReader, BrokenBody, Place};
use crate::telemetry::Metrics;

use super::bypass::Supply;
use super::why_failed;

/// A blob that is being fetched.
#[derive(Debug)]
pub(super) struct FlightContent {
    pub(super) handle: Handle,
    /// Where this client goes on if the disk fails.
    pub(super) supply: Supply,
    pub(super) place: Place,
    pub(super) metrics: Arc<Metrics>,
}

impl BlobContent for FlightContent {
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        Box::new(FlightReader {
            reader: self.handle.reader(range),
            rescued: None,
            supply: self.supply.clone(),
            place: self.place.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }
}

struct FlightReader {
    reader: Reader,
    /// What it reads from since the disk failed.
    rescued: Option<Box<dyn BlobReader>>,
    supply: Supply,
    place: Place,
    metrics: Arc<Metrics>,
}

impl FlightReader {
    async fn advance(&mut self) -> Option<Result<Chunk, BrokenBody>> {
        if self.rescued.is_none() {
            match self.reader.next().await? {
                Ok(chunk) => return Some(Ok(chunk)),
                Err(Failure::Wrecked(wreck)) => self.rescue(&wreck),
                Err(failure) => return Some(Err(broken(&failure))),
            }
        }
        self.rescued.as_mut()?.next().await
    }

    fn rescue(&mut self, wreck: &Arc<Wreck>) {
        let reason = why_failed(wreck.error());
        self.metrics.cache.bypassed(reason.as_str());
        tracing::warn!(
            upstream = %self.place.upstream, repository = %self.place.repository,
            digest = %self.supply.digest, reason = reason.as_str(), error = %wreck.error(),
            "the rest of a blob passes through uncached"
        );
        let (position, end) = (self.reader.position(), self.reader.end());
        let whole = self.reader.is_whole();
        self.rescued = Some(self.supply.rescue(wreck, position, end, whole));
    }
}

impl BlobReader for FlightReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(self.advance())
    }

    fn source(&self) -> &'static str {
        if self.rescued.is_some() {
            "bypass"
        } else {
            "flight"
        }
    }
}

fn broken(failure: &Failure) -> BrokenBody {
    BrokenBody {
        reason: match failure {
            Failure::Source(error) => error.reason(),
            Failure::Corrupt(_) => "corrupt",
            Failure::Store(_) | Failure::Wrecked(_) => "disk",
            Failure::Bypass(..) | Failure::Aborted => "aborted",
        },
        message: failure.to_string(),
    }
}

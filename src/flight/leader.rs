//! The fetch itself: asks the sources in turn, hands what arrives to the writer, compares the digest, commits.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::ports::{FetchError, Fetched, Leave, Source, Stage, StageError, StageId};
use super::shared::{Failure, Flight, Uncached};
use super::state::{Mismatch, State, Step};
use super::writer::{PUBLISH_AFTER, Piece, Writer};
use super::{Flights, TableEntry};
use crate::oci::Hasher;

/// Bytes of one flight that may wait for the disk.
const QUEUE_BYTES: usize = 1024 * 1024;

/// Leads one flight to its end. Dropped before that, by a panic or a stop, it fails the flight, so no reader waits for ever.
pub(super) struct Leader {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    entry: Option<TableEntry>,
    queue: Arc<Semaphore>,
    writer: Option<Arc<Writer>>,
}

/// How a step ended that did not bring its bytes.
enum StepEnd {
    /// The source failed; others may do better.
    Source(FetchError),
    /// The flight is over.
    Flight(Failure),
}

impl From<FetchError> for StepEnd {
    fn from(error: FetchError) -> Self {
        Self::Source(error)
    }
}

impl Leader {
    pub(super) fn new(flights: Arc<Flights>, flight: Arc<Flight>, entry: TableEntry) -> Self {
        flights.metrics.flight.flights.inc();
        Self {
            flights,
            flight,
            entry: Some(entry),
            queue: Arc::new(Semaphore::new(QUEUE_BYTES)),
            writer: None,
        }
    }

    /// Runs the flight. Its fetch ends with the interest in it, or with the program; what is complete is still committed.
    pub(super) async fn run(mut self) {
        let cancel = self.flight.cancel.clone();
        let ended = match cancel.run_until_cancelled(self.fetch()).await {
            Some(Ok(Some(writer))) => self.verify_and_commit(&writer).await,
            Some(Ok(None)) => Ok(()),
            Some(Err(why)) => Err(why),
            None => return,
        };
        if let Err(why) = ended {
            self.failed(why);
        }
    }

    /// Brings all the bytes; `None`: the blob had been committed in the meantime.
    async fn fetch(&mut self) -> Result<Option<Arc<Writer>>, Failure> {
        // Between the newcomer's look into the store and its place in the table, another flight may have committed.
        let digest = &self.flight.key.digest;
        if let Some(blob) = self
            .flights
            .blobs
            .open(digest)
            .await
            .map_err(store_failure)?
        {
            let _ = self.flight.stored.set(blob);
            self.flight.publish();
            return Ok(None);
        }
        loop {
            let (index, range) = match self.flight.with(State::next_step) {
                Step::Verify => break,
                Step::GiveUp(index) => return Err(self.give_up(index)),
                Step::Ask(index, range) => (index, range),
            };
            let Some(source) = self.flight.source(index) else {
                return Err(Failure::Aborted);
            };
            match self.step(index, source.as_ref(), range).await {
                Ok(()) => {}
                Err(StepEnd::Source(error)) => self.source_failed(index, source.key(), error),
                Err(StepEnd::Flight(why)) => return Err(why),
            }
        }
        self.writer.take().map(Some).ok_or(Failure::Aborted)
    }

    /// One request and its body.
    async fn step(
        &mut self,
        index: usize,
        source: &dyn Source,
        range: Option<Range<u64>>,
    ) -> Result<(), StepEnd> {
        let deadline = Instant::now() + self.flights.header_timeout;
        let fetched = source.fetch(range, deadline).await?;
        self.flight
            .with(|state| state.answered(index, fetched.total))
            .map_err(|mismatch| self.mismatch(&mismatch))?;
        let (writer, fetched) = match &self.writer {
            Some(writer) => (Arc::clone(writer), fetched),
            None => self.start_writer(fetched).await.map_err(StepEnd::Flight)?,
        };
        self.flight.publish();
        self.pump(fetched, &writer).await
    }

    async fn start_writer(&mut self, fetched: Fetched) -> Result<(Arc<Writer>, Fetched), Failure> {
        let Some(hasher) = Hasher::new(self.flight.key.digest.algorithm()) else {
            return Err(Failure::Corrupt(
                "a digest of this algorithm cannot be computed".into(),
            ));
        };
        let (stage, fetched) = self.stage(fetched).await?;
        let _ = self.flight.stage.set(Arc::clone(&stage));
        let pool = self.flights.writers.clone();
        let writer = Arc::new(Writer::new(Arc::clone(&self.flight), stage, pool, hasher));
        self.writer = Some(Arc::clone(&writer));
        Ok((writer, fetched))
    }

    /// A place for the blob, or the decision that it is not stored.
    async fn stage(&self, fetched: Fetched) -> Result<(Arc<dyn Stage>, Fetched), Failure> {
        let bypass = |reason, fetched| {
            Failure::Bypass(reason, Arc::new(parking_lot::Mutex::new(Some(fetched))))
        };
        if let Some(largest) = self.flights.max_blob_size
            && fetched.total.is_none_or(|total| total > largest)
        {
            return Err(bypass(Uncached::TooLarge, fetched));
        }
        let key = &self.flight.key;
        let id = StageId::of(&[key.upstream.as_str(), key.digest.as_str()]);
        match self.flights.blobs.stage(&id, fetched.total).await {
            Ok(stage) => Ok((stage, fetched)),
            Err(StageError::NoRoom { .. }) => Err(bypass(Uncached::NoRoom, fetched)),
            Err(StageError::Io(error)) => Err(store_failure(error)),
        }
    }

    /// Hands a body to the writer until it ends.
    async fn pump(&self, mut fetched: Fetched, writer: &Arc<Writer>) -> Result<(), StepEnd> {
        let mut position = fetched.start;
        let mut publish_at = None;
        loop {
            let next = tokio::select! {
                biased;
                () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => {
                    publish_at = None;
                    writer.publish();
                    continue;
                }
                () = writer.landed.notified(), if publish_at.is_none() => {
                    publish_at = Some(Instant::now() + PUBLISH_AFTER);
                    continue;
                }
                next = fetched.body.next() => next,
            };
            let ended = match next {
                Some(Ok(bytes)) => {
                    let end = position + bytes.len() as u64;
                    self.flight
                        .with(|state| state.fits(&(position..end)))
                        .map_err(|mismatch| self.mismatch(&mismatch))?;
                    self.hand_over(writer, position, bytes).await?;
                    position = end;
                    continue;
                }
                Some(Err(error)) => Err(StepEnd::Source(error)),
                None => Ok(()),
            };
            // What came before the end is on disk before anything is concluded from it.
            self.written(writer).await?;
            writer.publish();
            ended?;
            return self
                .flight
                .with(|state| state.ended(position))
                .map_err(|mismatch| self.mismatch(&mismatch));
        }
    }

    /// Gives bytes that are not there yet to the writer, waiting while too many are in memory.
    async fn hand_over(
        &self,
        writer: &Arc<Writer>,
        offset: u64,
        bytes: bytes::Bytes,
    ) -> Result<(), StepEnd> {
        let there = self.flight.with(|state| state.frontier());
        let known = usize::try_from(there.saturating_sub(offset)).unwrap_or(usize::MAX);
        let known = known.min(bytes.len());
        if known > 0 {
            let upstream = self.flight.key.upstream.as_str();
            self.flights.metrics.upstream.wasted(upstream, known as u64);
        }
        let rest = bytes.slice(known..);
        if rest.is_empty() {
            return Ok(());
        }
        let permits = u32::try_from(rest.len().min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let stopping = |_| StepEnd::Flight(Failure::Aborted);
        let own = Arc::clone(&self.queue)
            .acquire_many_owned(permits)
            .await
            .map_err(stopping)?;
        let all = Arc::clone(&self.flights.in_memory);
        let all = all.acquire_many_owned(permits).await.map_err(stopping)?;
        if let Some(error) = writer.failure() {
            return Err(StepEnd::Flight(Failure::Store(error)));
        }
        writer.push(Piece {
            offset: offset + known as u64,
            bytes: rest,
            _permits: [own, all],
        });
        Ok(())
    }

    /// Waits until the writer has nothing left to do.
    async fn written(&self, writer: &Writer) -> Result<(), StepEnd> {
        let all = u32::try_from(QUEUE_BYTES).unwrap_or(u32::MAX);
        let drained = self.queue.acquire_many(all).await;
        drop(drained.map_err(|_| StepEnd::Flight(Failure::Aborted))?);
        match writer.failure() {
            Some(error) => Err(StepEnd::Flight(Failure::Store(error))),
            None => Ok(()),
        }
    }

    async fn verify_and_commit(&mut self, writer: &Writer) -> Result<(), Failure> {
        let digest = &self.flight.key.digest;
        let (computed, len) = writer.finish();
        if computed.as_ref() != Some(digest) {
            let upstream = self.flight.key.upstream.as_str();
            self.flights.metrics.upstream.verify_failed(upstream);
            self.flights.metrics.upstream.wasted(upstream, len);
            return Err(Failure::Corrupt(
                format!("{upstream} sent {len} bytes that do not match {digest}").into(),
            ));
        }
        self.flight.with(State::verified);
        self.flight.publish();
        let Some(stage) = self.flight.stage.get() else {
            return Err(Failure::Aborted);
        };
        let committed = self
            .flights
            .blobs
            .commit(Arc::clone(stage), len, digest)
            .await;
        committed.map_err(store_failure)?;
        // Those that vouched with their answer get their record now, when what it names is durable.
        for index in self.flight.with(|state| state.answered_sources()) {
            if let Some(source) = self.flight.source(index) {
                source.delivered().await;
            }
        }
        Ok(())
    }

    fn mismatch(&self, mismatch: &Mismatch) -> StepEnd {
        let upstream = &self.flight.key.upstream;
        self.flights
            .metrics
            .upstream
            .verify_failed(upstream.as_str());
        let digest = &self.flight.key.digest;
        StepEnd::Flight(Failure::Corrupt(
            format!("{upstream}, {digest}: {mismatch}").into(),
        ))
    }

    fn source_failed(&self, index: usize, repository: &str, error: FetchError) {
        tracing::warn!(
            upstream = %self.flight.key.upstream, repository, digest = %self.flight.key.digest,
            reason = error.reason(), error = %error, "a source of a blob failed"
        );
        if matches!(error.reason(), "invalid" | "corrupt") {
            let upstream = self.flight.key.upstream.as_str();
            self.flights.metrics.upstream.verify_failed(upstream);
        }
        self.flight.with(|state| state.source_failed(index, error));
        self.flight.publish();
    }

    fn give_up(&self, index: usize) -> Failure {
        self.flight
            .with(|state| state.failure_of(index))
            .map_or(Failure::Aborted, Failure::Source)
    }

    fn failed(&mut self, why: Failure) {
        let key = &self.flight.key;
        match &why {
            // Each source's failure has been logged; a bypass is logged by whoever streams past.
            Failure::Source(_) | Failure::Bypass(..) => {}
            why if self.flight.with(|state| state.is_verified()) => tracing::error!(
                upstream = %key.upstream, digest = %key.digest, error = %why,
                "a blob was delivered but could not be stored"
            ),
            why => tracing::error!(
                upstream = %key.upstream, digest = %key.digest, error = %why, "a fetch failed"
            ),
        }
        // A body that broke off is worth another try at once; a refusal is not.
        let linger = matches!(why, Failure::Source(_))
            && self
                .flight
                .with(|state| state.answered_sources().is_empty());
        // Out of the table first: whoever is told of the failure and asks again starts anew.
        if let Some(stage) = self.flight.stage.get() {
            stage.close(Leave::Nothing);
        }
        let entry = self.entry.take();
        if !linger {
            drop(entry);
            self.flight.fail(why);
            return;
        }
        self.flight.fail(why);
        if let Some(entry) = entry {
            self.flights.linger(entry);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.metrics.flight.flights.dec();
        self.flight.ended();
        let entry = self.entry.take();
        let ended_well = self.flight.stored.get().is_some()
            || self
                .flight
                .with(|state| state.is_verified() || state.failure().is_some());
        drop(entry);
        if !ended_well {
            self.flight.fail(Failure::Aborted);
        }
    }
}

fn store_failure(error: std::io::Error) -> Failure {
    Failure::Store(Arc::new(error))
}

//! One step: the request, and the way of its bytes to the writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::flight::Flights;
use crate::flight::ports::{Body, BoxFuture, FetchError, Fetched, Pace, Source};
use crate::flight::shared::Flight;
use crate::flight::state::{Ask, Mismatch, StepId, Take};
use crate::flight::writer::{Piece, Writer};

/// Bytes of one flight that may wait for the disk.
const QUEUE_BYTES: usize = 1024 * 1024;

/// What a step has to tell.
pub(super) enum Event {
    /// The head of its answer is there, or will not come.
    Head(Ask, Result<Fetched, FetchError>),
    /// Its body is over.
    Over(StepId, End),
}

/// How a body ended.
pub(super) enum End {
    /// Cleanly, by itself.
    Clean,
    /// We had enough of it.
    Enough,
    /// It broke off.
    Broken(FetchError),
    /// It does not fit what is known of the blob.
    Misfit(Mismatch),
    /// The disk takes no more.
    Disk,
}

/// A step under way.
pub(super) type Running = BoxFuture<'static, Event>;

/// Asks a source.
pub(super) fn ask(source: Arc<dyn Source>, ask: Ask, deadline: Instant) -> Running {
    Box::pin(async move {
        let result = source
            .fetch(ask.range.clone(), Pace::Stored, deadline)
            .await;
        Event::Head(ask, result)
    })
}

/// The way of a flight's bytes to its writer. Bounds those that wait for the disk.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) flights: Arc<Flights>,
    pub(super) flight: Arc<Flight>,
    pub(super) writer: Arc<Writer>,
    queue: Arc<Semaphore>,
}

impl Line {
    pub(super) fn new(flights: Arc<Flights>, flight: Arc<Flight>, writer: Arc<Writer>) -> Self {
        Self {
            flights,
            flight,
            writer,
            queue: Arc::new(Semaphore::new(QUEUE_BYTES)),
        }
    }

    /// Hands a body to the writer until it ends.
    pub(super) fn pump(&self, step: StepId, body: Box<dyn Body>) -> Running {
        let line = self.clone();
        Box::pin(async move { Event::Over(step, line.run(step, body).await) })
    }

    async fn run(&self, step: StepId, mut body: Box<dyn Body>) -> End {
        loop {
            let taken = match body.next().await {
                Some(Ok(bytes)) => self.take_in(step, bytes).await,
                Some(Err(error)) => return End::Broken(error),
                None => return End::Clean,
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    /// Gives what is new of `bytes` to the writer, waiting while too many are in memory.
    async fn take_in(&self, step: StepId, mut bytes: Bytes) -> Result<(), End> {
        while !bytes.is_empty() {
            let permits = self.permits(bytes.len()).await?;
            let mut changes = self.flight.watch();
            let (at, take, makes_way) = self.flight.with(|state| {
                let at = state.position(step);
                let take = state.take(step, bytes.len() as u64);
                (at, take, state.makes_way(step, at))
            });
            match take.map_err(End::Misfit)? {
                Take::Keep(count) => {
                    if makes_way {
                        self.flight.wants.notify_one();
                    }
                    let bytes = split(&mut bytes, count);
                    self.writer.push(Piece {
                        offset: at,
                        bytes,
                        _permits: permits,
                    });
                }
                Take::Skip(count) => self.waste(split(&mut bytes, count).len()),
                Take::Wait => {
                    drop(permits);
                    if changes.changed().await.is_err() {
                        return Err(End::Enough);
                    }
                }
                Take::Stop => {
                    self.waste(bytes.len());
                    return Err(End::Enough);
                }
            }
        }
        Ok(())
    }

    async fn permits(&self, len: usize) -> Result<[tokio::sync::OwnedSemaphorePermit; 2], End> {
        let permits = u32::try_from(len.min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let own = Arc::clone(&self.queue).acquire_many_owned(permits);
        let own = own.await.map_err(|_| End::Enough)?;
        let all = Arc::clone(&self.flights.in_memory).acquire_many_owned(permits);
        let all = all.await.map_err(|_| End::Enough)?;
        if self.writer.failure().is_some() {
            return Err(End::Disk);
        }
        Ok([own, all])
    }

    fn waste(&self, bytes: usize) {
        if bytes > 0 {
            let upstream = self.flight.key.upstream.as_str();
            let metrics = &self.flights.metrics.upstream;
            metrics.wasted(upstream, bytes as u64);
        }
    }
}

/// Takes the first `count` bytes off.
fn split(bytes: &mut Bytes, count: u64) -> Bytes {
    let count = usize::try_from(count).map_or(bytes.len(), |count| count.min(bytes.len()));
    bytes.split_to(count)
}

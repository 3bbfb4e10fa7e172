//! One step: the request, and the way of its bytes to the writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::gather::Gathered;
use crate::flight::Flights;
use crate::flight::ports::{Body, BoxFuture, FetchError, Fetched, Pace, Source};
use crate::flight::shared::Flight;
use crate::flight::state::{Ask, Mismatch, StepId, Take};
use crate::flight::writer::{Permits, Writer};

/// Bytes of one flight that may wait to be written and hashed.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

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
        let mut gathered = Gathered::new(Arc::clone(&self.writer));
        loop {
            let next = match gathered.due() {
                Some(due) => timeout_at(due, body.next()).await,
                None => Ok(body.next().await),
            };
            let taken = match next {
                Err(_) => {
                    gathered.hand_over();
                    Ok(())
                }
                Ok(Some(Ok(bytes))) => self.take_in(step, bytes, &mut gathered).await,
                Ok(Some(Err(error))) => return End::Broken(error),
                Ok(None) => return End::Clean,
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    /// Gives what is new of `bytes` to the writer, waiting while too many are in memory.
    async fn take_in(
        &self,
        step: StepId,
        mut bytes: Bytes,
        gathered: &mut Gathered,
    ) -> Result<(), End> {
        while !bytes.is_empty() {
            let permits = self.permits(bytes.len(), gathered).await?;
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
                    gathered.add(at, bytes, permits);
                }
                Take::Skip(count) => self.waste(split(&mut bytes, count).len()),
                Take::Wait => {
                    drop(permits);
                    gathered.hand_over();
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

    async fn permits(&self, len: usize, gathered: &mut Gathered) -> Result<Permits, End> {
        let permits = u32::try_from(len.min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let own = permit(&self.queue, permits, gathered).await?;
        let all = permit(&self.flights.in_memory, permits, gathered).await?;
        if self.writer.failure().is_some() {
            return Err(End::Disk);
        }
        Ok(Permits { own, all })
    }

    fn waste(&self, bytes: usize) {
        if bytes > 0 {
            let upstream = self.flight.key.upstream.as_str();
            let metrics = &self.flights.metrics.upstream;
            metrics.wasted(upstream, bytes as u64);
        }
    }
}

/// Waits for the right to have bytes in memory. Nothing that has such a right waits meanwhile.
async fn permit(
    of: &Arc<Semaphore>,
    count: u32,
    gathered: &mut Gathered,
) -> Result<OwnedSemaphorePermit, End> {
    if let Ok(permit) = Arc::clone(of).try_acquire_many_owned(count) {
        return Ok(permit);
    }
    gathered.hand_over();
    let permit = Arc::clone(of).acquire_many_owned(count);
    permit.await.map_err(|_| End::Enough)
}

/// Takes the first `count` bytes off.
fn split(bytes: &mut Bytes, count: u64) -> Bytes {
    let count = usize::try_from(count).map_or(bytes.len(), |count| count.min(bytes.len()));
    bytes.split_to(count)
}

//! The fetch itself: takes up what an earlier one left, has steps ask the sources as the state plans it, compares the
//! digest, commits.

mod error;
mod gather;
mod step;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::Flights;
use super::claims::TableLease;
use super::lookup::Leading;
use super::ports::{Body, FetchError, Fetched, Leave, Stage, StageError, StageId};
use super::shared::{Failure, Flight, Key, Uncached};
use super::state::{Answered, Ask, Mismatch, Plan, State, StepId};
use super::writer::{PUBLISH_AFTER, Writer};
use crate::oci::Hasher;
use error::Misfit;
use step::{End, Event, Line, Running};

/// A flight's place in the table.
pub(super) type Lease = TableLease<Key, Arc<Flight>>;

/// Leads one flight to its end. Dropped before that, by a panic or a stop, it fails the flight, so no reader waits for ever.
pub(super) struct Leader {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    /// How many commits there were when the newcomer looked into the store.
    commits: u64,
    /// What an earlier fetch left, until the first answer shows that it is of use.
    left: Option<Arc<dyn Stage>>,
    /// What an earlier fetch left may not be taken up for want of room, and is kept for a better time.
    is_full: bool,
    /// Where bytes go, from the first answer on.
    line: Option<Line>,
    /// Until when the first answer must be there, of the sources that were asked so far …
    opening: Instant,
    /// … which are so many.
    introduced: usize,
    /// When the wait after a failure is over.
    pause: Option<Instant>,
    /// When readers hear of what landed.
    publish: Option<Instant>,
    /// The stage has become a blob.
    is_committed: bool,
}

impl Leader {
    pub(super) fn new(flights: Arc<Flights>, flight: Arc<Flight>, commits: u64) -> Self {
        flights.metrics.flight.flights.inc();
        Self {
            flights,
            flight,
            commits,
            left: None,
            is_full: false,
            line: None,
            opening: Instant::now(),
            introduced: 0,
            pause: None,
            publish: None,
            is_committed: false,
        }
    }

    /// Brings all the bytes.
    async fn bring_all(&mut self) -> Result<Line, StepEnd> {
        self.take_up().await?;
        let mut steps = FuturesUnordered::new();
        loop {
            match self.flight.with(State::plan) {
                Plan::Ask(ask) => steps.push(self.ask(ask)?),
                Plan::Wait => {
                    if let Some(event) = self.event(&mut steps).await? {
                        steps.extend(self.handle(event).await?);
                    }
                }
                Plan::Complete => {
                    steps.clear();
                    if let Some(line) = self.complete().await? {
                        return Ok(line);
                    }
                }
                Plan::GiveUp => return Err(self.give_up().into()),
            }
        }
    }

    /// Takes up what an earlier fetch left, if it is of use: not where the bytes of one source alone are to be taken, since
    /// nobody knows who sent it. Waits for an earlier fetch that is just ending. Where it cannot be taken up now it stays,
    /// and so there is no stage for this fetch.
    async fn take_up(&mut self) -> Result<(), Failure> {
        let id = self.stage_id();
        let left = match self.flights.blobs.resume(&id).await {
            Ok(left) => left,
            Err(StageError::NoRoom { .. }) => {
                self.is_full = true;
                None
            }
            Err(StageError::Io(error)) => return Err(store_failure(error)),
        };
        let Some(stage) = left else { return Ok(()) };
        let is_wanted = !self.flight.with(|state| state.takes_from_one());
        let most = self.flights.max_blob_size.unwrap_or(u64::MAX);
        match stage.len() {
            Some(len) if is_wanted && len <= most => {
                let present = stage.present();
                self.flight.with(|state| state.resumed(len, present));
                self.left = Some(stage);
            }
            _ => stage.close(Leave::Nothing),
        }
        Ok(())
    }

    fn stage_id(&self) -> StageId {
        let key = &self.flight.key;
        StageId::of_blob(key.upstream.as_str(), &key.digest)
    }

    fn ask(&mut self, ask: Ask) -> Result<Running, Failure> {
        let source = self.flight.source(ask.source).ok_or(Failure::Aborted)?;
        if ask.again {
            let metrics = &self.flights.metrics.upstream;
            metrics.resumed(self.flight.key.upstream.as_str());
        }
        let deadline = self.deadline(ask.source);
        Ok(step::ask(source, ask, deadline))
    }

    /// Until when a source has to answer that is asked now. Before the first answer, tries share the time that each source
    /// brings with it.
    fn deadline(&mut self, source: usize) -> Instant {
        let from_now = Instant::now() + self.flights.header_timeout;
        if self.flight.with(|state| state.has_answer()) {
            return from_now;
        }
        if source >= self.introduced {
            self.introduced = source.saturating_add(1);
            self.opening = from_now;
        }
        self.opening
    }

    /// Waits for what steps, readers, the writer or the clock have to tell. `None`: look at the plan again.
    async fn event(
        &mut self,
        steps: &mut FuturesUnordered<Running>,
    ) -> Result<Option<Event>, StepEnd> {
        let writer = self.line.as_ref().map(|line| &line.writer);
        loop {
            tokio::select! {
                biased;
                () = until(self.publish) => {
                    self.publish = None;
                    if let Some(writer) = writer {
                        writer.publish();
                    }
                }
                () = landed(writer), if self.publish.is_none() => {
                    if writer.is_some_and(|writer| writer.failure().is_some()) {
                        return Err(StepEnd::Disk);
                    }
                    self.publish = Some(Instant::now() + PUBLISH_AFTER);
                }
                () = until(self.pause) => {
                    self.pause = None;
                    self.flight.with(State::go_on);
                    return Ok(None);
                }
                () = self.flight.wants.notified() => return Ok(None),
                Some(event) = steps.next(), if !steps.is_empty() => return Ok(Some(event)),
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Result<Option<Running>, StepEnd> {
        match event {
            Event::Head(ask, Ok(fetched)) => self.answered(&ask, fetched).await,
            Event::Head(ask, Err(error)) => {
                self.step_failed(ask.step, &error);
                Ok(None)
            }
            Event::Over(step, end) => self.over(step, end).map(|()| None),
        }
    }

    /// The head of an answer is there. Returns the rest of the step, if its body is wanted.
    async fn answered(&mut self, ask: &Ask, fetched: Fetched) -> Result<Option<Running>, StepEnd> {
        let part = fetched.is_part.then_some(fetched.start);
        let total = fetched.total;
        let answered = self
            .flight
            .with(|state| state.answered(ask.step, part, total));
        match answered {
            Ok(Answered::Wanted) => {}
            Ok(Answered::Redundant) => {
                // The one that brings the same may wait for this.
                self.flight.publish();
                return Ok(None);
            }
            Err(mismatch) => {
                self.misfit(ask.step, &mismatch);
                return Ok(None);
            }
        }
        let body = match &self.line {
            Some(_) => fetched.body,
            None => self.open_line(fetched).await?,
        };
        self.flight.publish();
        Ok(self.line.as_ref().map(|line| line.pump(ask.step, body)))
    }

    fn over(&mut self, step: StepId, end: End) -> Result<(), StepEnd> {
        match end {
            End::Clean => match self.flight.with(|state| state.ended(step)) {
                Ok(true) => {}
                Ok(false) => {
                    let error: FetchError = Arc::new(Misfit::Short);
                    self.step_failed(step, &error);
                }
                Err(mismatch) => self.misfit(step, &mismatch),
            },
            End::Enough => {
                self.flight.with(|state| state.close_step(step));
            }
            End::Broken(error) => self.step_failed(step, &error),
            End::Misfit(mismatch) => self.misfit(step, &mismatch),
            End::Disk => return Err(StepEnd::Disk),
        }
        // A step may wait to see whether another brings what it meets.
        self.flight.publish();
        Ok(())
    }

    /// Makes the place for the blob, and the way to it.
    async fn open_line(&mut self, fetched: Fetched) -> Result<Box<dyn Body>, Failure> {
        if let Some(stage) = self.left.take() {
            self.start_line(stage)?;
            return Ok(fetched.body);
        }
        let bypass = |reason, fetched| {
            Failure::Bypass(reason, Arc::new(parking_lot::Mutex::new(Some(fetched))))
        };
        if let Some(largest) = self.flights.max_blob_size
            && fetched.total.is_none_or(|total| total > largest)
        {
            return Err(bypass(Uncached::TooLarge, fetched));
        }
        if self.is_full {
            return Err(bypass(Uncached::NoRoom, fetched));
        }
        match self
            .flights
            .blobs
            .stage(&self.stage_id(), fetched.total)
            .await
        {
            Ok(stage) => self.start_line(stage)?,
            Err(StageError::NoRoom { .. }) => return Err(bypass(Uncached::NoRoom, fetched)),
            Err(StageError::Io(error)) => return Err(store_failure(error)),
        }
        Ok(fetched.body)
    }

    fn start_line(&mut self, stage: Arc<dyn Stage>) -> Result<(), Failure> {
        let _ = self.flight.stage.set(Arc::clone(&stage));
        self.line = Some(self.make_line(stage)?);
        Ok(())
    }

    fn make_line(&self, stage: Arc<dyn Stage>) -> Result<Line, Failure> {
        let flight = &self.flight;
        let hasher = Hasher::new(flight.key.digest.algorithm()).ok_or_else(|| {
            Failure::Corrupt("a digest of this algorithm cannot be computed".into())
        })?;
        let pool = self.flights.writers.clone();
        let writer = Arc::new(Writer::new(Arc::clone(flight), stage, pool, hasher));
        // What is there already is read back for the hash.
        writer.start();
        Ok(Line::new(
            Arc::clone(&self.flights),
            Arc::clone(flight),
            writer,
        ))
    }

    /// Waits until all bytes are written and hashed. `None`: they were left by an earlier fetch and are not the blob, so they
    /// are thrown away, and the fetch begins anew.
    async fn complete(&mut self) -> Result<Option<Line>, StepEnd> {
        let Some(stage) = self.left.take() else {
            let line = self.line.clone().ok_or(Failure::Aborted)?;
            return Self::written(line).await.map(Some);
        };
        // Nobody was asked, so nobody reads from it yet.
        let line = self.make_line(Arc::clone(&stage))?;
        self.line = Some(line.clone());
        let line = Self::written(line).await;
        let key = &self.flight.key;
        if let Ok(line) = &line
            && line.writer.digest().0 != key.digest
        {
            tracing::warn!(
                upstream = %key.upstream, digest = %key.digest,
                "what an earlier fetch left does not match the digest and is thrown away"
            );
            stage.close(Leave::Nothing);
            self.flight.with(State::start_over);
            self.line = None;
            return Ok(None);
        }
        let _ = self.flight.stage.set(stage);
        line.map(Some)
    }

    async fn written(line: Line) -> Result<Line, StepEnd> {
        line.writer.idle().await;
        line.writer.publish();
        match line.writer.failure() {
            Some(_) => Err(StepEnd::Disk),
            None => Ok(line),
        }
    }

    fn verify(&self, line: &Line) -> Result<(), Failure> {
        let digest = &self.flight.key.digest;
        let (computed, len) = line.writer.digest();
        if computed != *digest {
            let upstream = self.flight.key.upstream.as_str();
            self.flights.metrics.upstream.verify_failed(upstream);
            self.flights.metrics.upstream.wasted(upstream, len);
            self.ban();
            return Err(Failure::Corrupt(
                format!("{upstream} sent {len} bytes that do not match {digest}").into(),
            ));
        }
        self.flight.with(State::verified);
        self.flight.publish();
        Ok(())
    }

    /// Waits until what came is where it is kept.
    async fn all_written(&self) {
        if let Some(line) = &self.line {
            line.writer.idle().await;
        }
    }

    /// What the disk's failure leaves to the readers.
    fn wreck(&self) -> Failure {
        let writer = self.line.as_ref().map(|line| &line.writer);
        match writer.and_then(|writer| Some((writer, writer.failure()?))) {
            Some((writer, error)) => Failure::Wrecked(Arc::new(writer.wreck(error))),
            None => Failure::Aborted,
        }
    }

    fn give_up(&self) -> Failure {
        match self.flight.with(|state| state.most_telling()) {
            Some(error) if error.reason() == error::CORRUPT => {
                Failure::Corrupt(error.to_string().into())
            }
            Some(error) => Failure::Source(error),
            None => Failure::Aborted,
        }
    }
}

impl Leading<Lease> for Leader {
    type Error = Failure;

    fn is_news(&self) -> bool {
        self.flights.blobs.commits() != self.commits
    }

    /// Between the newcomer's look into the store and its place in the table, another flight may have committed.
    async fn look_again(&mut self) -> Result<bool, Failure> {
        let found = self.flights.blobs.open(&self.flight.key.digest).await;
        let Some(blob) = found.map_err(store_failure)? else {
            return Ok(false);
        };
        let _ = self.flight.stored.set(blob);
        self.flight.publish();
        Ok(true)
    }

    /// Breaks off when nobody wants the blob any more, or the program stops; what is complete is still committed.
    async fn fetch(&mut self) -> Result<bool, Failure> {
        let cancel = self.flight.cancel.clone();
        let fetched = cancel.run_until_cancelled(self.bring_all()).await;
        self.all_written().await;
        let line = match fetched {
            Some(Ok(line)) => line,
            Some(Err(StepEnd::Failed(why))) => return Err(why),
            Some(Err(StepEnd::Disk)) => return Err(self.wreck()),
            None => return Ok(false),
        };
        if !self.flight.with(State::settle) {
            return Ok(false);
        }
        self.verify(&line)?;
        Ok(true)
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let digest = &self.flight.key.digest;
        let (Some(stage), Some(len)) = (
            self.flight.stage.get(),
            self.flight.with(|state| state.size()),
        ) else {
            return Err(Failure::Aborted);
        };
        let blobs = &self.flights.blobs;
        let committed = blobs.commit(Arc::clone(stage), len, digest).await;
        if let Err(error) = committed {
            let why = store_failure(error);
            let _ = self.flight.uncommitted.set(why.clone());
            return Err(why);
        }
        self.is_committed = true;
        // Those that vouched with their answer get their record now, when what it names is durable.
        for index in self.flight.with(|state| state.answered_sources()) {
            if let Some(source) = self.flight.source(index) {
                source.delivered(len).await;
            }
        }
        self.flight.committed.store(true, Ordering::Release);
        Ok(())
    }

    fn fail(self, why: Failure, lease: Lease) {
        self.failed(&why);
        let (flights, flight) = (Arc::clone(&self.flights), Arc::clone(&self.flight));
        // From here on nobody joins, unless the failure lingers: whoever is told of it and asks again starts anew.
        flight.fail(why);
        drop(self);
        if flight.lingers() {
            flights.linger(lease);
        }
    }
}

/// Why the fetch came to its end.
enum StepEnd {
    /// The flight is over.
    Failed(Failure),
    /// The disk failed under it.
    Disk,
}

impl From<Failure> for StepEnd {
    fn from(why: Failure) -> Self {
        Self::Failed(why)
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn landed(writer: Option<&Arc<Writer>>) {
    match writer {
        Some(writer) => writer.landed.notified().await,
        None => std::future::pending().await,
    }
}

fn store_failure(error: std::io::Error) -> Failure {
    Failure::Store(Arc::new(error))
}

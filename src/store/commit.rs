//! Makes changes durable and visible, many at a time.
//!
//! One after the other, syncs hold small blobs to about a thousand per second. So everything that was asked for within
//! the last [`WINDOW`] goes through each step together; a change that finds the committer idle does not wait. A large blob
//! that the disk has not taken yet is synced first, by itself, so that nobody else waits for that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::Tasks;

use super::batch::Batcher;
use super::change::Change;

/// Hands changes to the committer's task. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
}

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<io::Result<bool>>,
}

impl Committer {
    /// Starts the task, which ends when the last clone is dropped, or when `tasks` stops and all that was asked for
    /// before is done.
    pub(super) fn start(batcher: Batcher, tasks: &Tasks) -> Self {
        let (jobs, receiver) = mpsc::channel(MOST_WAITING);
        let asked = Asked::new(receiver, tasks.stopping());
        tasks.spawn(run(Arc::new(batcher), asked));
        Self { jobs }
    }

    /// Makes `change`. Durable when it returns; carried out even when the caller no longer waits. Returns whether there
    /// was something to do (see [`Change`]).
    pub(super) async fn make(&self, change: Change) -> io::Result<bool> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Job { change, done })
            .await
            .map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }
}

async fn run(batcher: Arc<Batcher>, mut asked: Asked) {
    let mut next_batch = Instant::now();
    while let Some(first) = asked.next().await {
        tokio::time::sleep_until(next_batch).await;
        next_batch = Instant::now() + WINDOW;
        let mut batch = vec![first];
        while batch.len() < MOST_AT_ONCE
            && let Some(job) = asked.next_now()
        {
            batch.push(job);
        }
        let batcher = Arc::clone(&batcher);
        if let Err(error) = tokio::task::spawn_blocking(move || batcher.run(batch)).await {
            // Those who wait are told by their dropped channel.
            tracing::error!(%error, "a commit broke off; please report this");
        }
    }
    if let Err(error) = tokio::task::spawn_blocking(move || batcher.leave_totals()).await {
        tracing::error!(%error, "the last commit broke off; please report this");
    }
}

/// What was asked for and can be done now: in the order in which it was asked for, but for what has to be synced first.
struct Asked {
    jobs: mpsc::Receiver<Job>,
    stopping: CancellationToken,
    /// Whether more may be asked for.
    is_open: bool,
    /// Whether anything may be left in `jobs`.
    may_come: bool,
    /// Large commits on their way to the disk. Each stage has at most one.
    syncing: JoinSet<Option<Job>>,
    syncs: Arc<Semaphore>,
}

impl Asked {
    fn new(jobs: mpsc::Receiver<Job>, stopping: CancellationToken) -> Self {
        Self {
            jobs,
            stopping,
            is_open: true,
            may_come: true,
            syncing: JoinSet::new(),
            syncs: Arc::new(Semaphore::new(MOST_SYNCS)),
        }
    }

    /// Waits for the next; `None` when nobody asks any more and all that was asked for was given out.
    async fn next(&mut self) -> Option<Job> {
        loop {
            tokio::select! {
                biased;
                Some(synced) = self.syncing.join_next() => {
                    if let Some(job) = unbroken(synced) {
                        return Some(job);
                    }
                }
                job = self.jobs.recv(), if self.may_come && self.syncing.len() < MOST_WAITING => {
                    let Some(job) = job else {
                        (self.may_come, self.is_open) = (false, false);
                        continue;
                    };
                    if let Some(job) = self.or_sync_first(job) {
                        return Some(job);
                    }
                }
                () = self.stopping.cancelled(), if self.is_open => {
                    self.jobs.close();
                    self.is_open = false;
                }
                else => return None,
            }
        }
    }

    /// The next that does not have to be waited for.
    fn next_now(&mut self) -> Option<Job> {
        loop {
            let job = if let Some(synced) = self.syncing.try_join_next() {
                unbroken(synced)
            } else if self.syncing.len() < MOST_WAITING {
                let job = self.jobs.try_recv().ok()?;
                self.or_sync_first(job)
            } else {
                return None;
            };
            if job.is_some() {
                return job;
            }
        }
    }

    /// The job, unless much of its content has to reach the disk first: it comes back when that is done.
    fn or_sync_first(&mut self, job: Job) -> Option<Job> {
        if !job.change.is_behind() {
            return Some(job);
        }
        let syncs = Arc::clone(&self.syncs);
        self.syncing.spawn(async move {
            let permit = syncs.acquire_owned().await.ok()?;
            let synced = tokio::task::spawn_blocking(move || job.sync()).await;
            drop(permit);
            unbroken(synced)
        });
        None
    }
}

fn unbroken(synced: Result<Option<Job>, JoinError>) -> Option<Job> {
    synced.unwrap_or_else(|error| {
        // The one who waits is told by its dropped channel.
        tracing::error!(%error, "the sync before a commit broke off; please report this");
        None
    })
}

impl Job {
    /// Makes the content durable that is to be committed. `None` where that fails, which the one who waits is told. Blocks.
    fn sync(self) -> Option<Self> {
        match self.change.sync() {
            Ok(()) => Some(self),
            Err(error) => {
                self.answer(Err(error));
                None
            }
        }
    }

    /// Tells the one who waits, if anybody does.
    pub(super) fn answer(self, result: io::Result<bool>) {
        let Self { change, done } = self;
        // Whoever hears of a failure finds the stage in his hands again.
        drop(change);
        let _ = done.send(result);
    }
}

fn stopped() -> io::Error {
    io::Error::other("the store has stopped")
}

/// Changes asked for within this time go together.
const WINDOW: Duration = Duration::from_millis(20);

/// Bounds how long the first of a batch waits for the last.
const MOST_AT_ONCE: usize = 512;

/// Changes that may wait before those who ask for more wait too.
const MOST_WAITING: usize = 1024;

/// Large blobs that are synced at once before their commit.
const MOST_SYNCS: usize = 4;

//! Makes changes durable and visible, many at a time.
//!
//! One after the other, syncs hold small blobs to about a thousand per second. So everything that was asked for within
//! the last [`WINDOW`] goes through each step together; a change that finds the committer idle does not wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
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
        tasks.spawn(run(Arc::new(batcher), receiver, tasks.stopping()));
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

async fn run(batcher: Arc<Batcher>, mut jobs: mpsc::Receiver<Job>, stopping: CancellationToken) {
    let mut next_batch = Instant::now();
    let mut is_open = true;
    loop {
        let first = tokio::select! {
            biased;
            job = jobs.recv() => job,
            () = stopping.cancelled(), if is_open => {
                jobs.close();
                is_open = false;
                continue;
            }
        };
        let Some(first) = first else { break };
        tokio::time::sleep_until(next_batch).await;
        next_batch = Instant::now() + WINDOW;
        let mut batch = vec![first];
        while batch.len() < MOST_AT_ONCE
            && let Ok(job) = jobs.try_recv()
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

fn stopped() -> io::Error {
    io::Error::other("the store has stopped")
}

/// Changes asked for within this time go together.
const WINDOW: Duration = Duration::from_millis(20);

/// Bounds how long the first of a batch waits for the last.
const MOST_AT_ONCE: usize = 512;

/// Changes that may wait before those who ask for more wait too.
const MOST_WAITING: usize = 1024;

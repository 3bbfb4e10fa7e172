//! One piece of work per key, many waiters. The work is an owned task, so a waiter that leaves stops nothing.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::runtime::Tasks;
use crate::upstream;

use super::Error;

/// Work under way, by key.
pub(super) struct Singles<K, T> {
    running: Running<K, T>,
    tasks: Tasks,
}

type Running<K, T> = Arc<Mutex<HashMap<K, Outcome<T>>>>;

/// Holds `None` until the work has ended; closed without a value when it was dropped.
type Outcome<T> = watch::Receiver<Option<Result<T, Error>>>;

/// Whether a waiter started the work or found it under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Joiner,
}

impl<K, T> Singles<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            running: Arc::default(),
            tasks,
        }
    }

    /// Joins the work for `key`, or starts it, and waits for its outcome until `deadline`.
    ///
    /// A failure is everyone's. Whoever comes after the end starts anew, so the work looks first whether what it is
    /// for is there by now.
    pub(super) async fn run<F>(
        &self,
        key: &K,
        deadline: Instant,
        work: impl FnOnce() -> F,
    ) -> Result<(T, Role), Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (mut outcome, role) = self.join(key, work);
        let ended = timeout_at(deadline, outcome.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(result)) => match &*result {
                Some(Ok(value)) => Ok((value.clone(), role)),
                Some(Err(error)) => Err(error.clone()),
                None => Err(Error::Stopping),
            },
            Ok(Err(_dropped)) => Err(Error::Stopping),
            Err(_elapsed) => Err(Error::Upstream(upstream::Error::Unavailable {
                message: "the upstream gave no answer in time; ask again".to_owned(),
            })),
        }
    }

    /// Starts the work for `key` unless it is under way, and waits for nothing.
    pub(super) fn start<F>(&self, key: &K, work: impl FnOnce() -> F)
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.join(key, work);
    }

    fn join<F>(&self, key: &K, work: impl FnOnce() -> F) -> (Outcome<T>, Role)
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(outcome) = running.get(key) {
            return (outcome.clone(), Role::Joiner);
        }
        let (publish, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        drop(running);
        let entry = Entry {
            running: Arc::clone(&self.running),
            key: key.clone(),
        };
        let work = work();
        let task = async move {
            let result = work.await;
            // The work has put its result where a newcomer looks first, so the entry goes before the waiters know.
            drop(entry);
            publish.send_replace(Some(result));
        };
        self.tasks.spawn_until_stop(task.in_current_span());
        (outcome, Role::Leader)
    }
}

/// A place in the table, left when dropped: at the end of the work, and when it panics or is told to stop.
struct Entry<K: Eq + Hash, T> {
    running: Running<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
    }
}

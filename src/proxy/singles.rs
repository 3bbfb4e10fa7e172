//! One piece of work per key, many waiters. The work is an owned task, so a waiter that leaves stops nothing.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

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

type Running<K, T> = Arc<Mutex<HashMap<K, Work<T>>>>;

/// Work as those see it who join it.
#[derive(Clone)]
struct Work<T> {
    outcome: Outcome<T>,
    /// Of whoever started it, and so of the work.
    deadline: Instant,
}

/// Holds `None` until the work has ended; closed without a value when it was dropped.
type Outcome<T> = watch::Receiver<Option<Result<T, Error>>>;

/// What work is for, and whom it waits for: those whose time is up are told.
pub(super) trait Subject {
    /// Name of the upstream, or whatever else it is.
    fn awaited(&self) -> &str;
}

impl Subject for () {
    fn awaited(&self) -> &'static str {
        "the data directory"
    }
}

/// Whether a waiter started the work or found it under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Joiner,
}

/// With less time than this a question is not worth asking.
const ENOUGH: Duration = Duration::from_secs(1);

impl<K, T> Singles<K, T>
where
    K: Subject + Clone + Eq + Hash + Send + 'static,
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
    /// A failure is everyone's, but for the lack of time: who joined work that its leader had no more time for, and has
    /// time left, asks once more. Whoever comes after the end starts anew, so the work looks first whether what it is
    /// for is there by now. It starts with `deadline` for its own.
    pub(super) async fn run<F>(
        &self,
        key: &K,
        deadline: Instant,
        work: impl Fn() -> F,
    ) -> Result<(T, Role), Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (joined, role) = self.join(key, deadline, &work);
        let result = wait(joined.outcome, deadline, key).await;
        let soon = Instant::now() + ENOUGH;
        let had_no_time = role == Role::Joiner
            && joined.deadline <= soon
            && matches!(
                result,
                Err(Error::Upstream(upstream::Error::Unavailable { .. }))
            );
        if had_no_time && deadline > soon {
            let (joined, role) = self.join(key, deadline, &work);
            return Ok((wait(joined.outcome, deadline, key).await?, role));
        }
        Ok((result?, role))
    }

    /// Starts the work for `key` unless it is under way, and waits for nothing.
    pub(super) fn start<F>(&self, key: &K, deadline: Instant, work: impl Fn() -> F)
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.join(key, deadline, work);
    }

    fn join<F>(&self, key: &K, deadline: Instant, work: impl Fn() -> F) -> (Work<T>, Role)
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(joined) = running.get(key) {
            return (joined.clone(), Role::Joiner);
        }
        let (publish, outcome) = watch::channel(None);
        let started = Work { outcome, deadline };
        running.insert(key.clone(), started.clone());
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
        (started, Role::Leader)
    }
}

/// The outcome of work, if it has one until `deadline`.
async fn wait<T: Clone>(
    mut outcome: Outcome<T>,
    deadline: Instant,
    subject: &impl Subject,
) -> Result<T, Error> {
    let ended = timeout_at(deadline, outcome.wait_for(Option::is_some)).await;
    match ended {
        Ok(Ok(result)) => match &*result {
            Some(result) => result.clone(),
            None => Err(Error::Stopping),
        },
        Ok(Err(_dropped)) => Err(Error::Stopping),
        Err(_elapsed) => Err(Error::Upstream(upstream::Error::Unavailable {
            message: format!("{} gave no answer in time; ask again", subject.awaited()),
        })),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::proxy::testing::{SECOND, client, turns, unavailable};

    /// Has a leader with `leader` until its deadline and a joiner with twenty seconds ask an upstream whose first
    /// failure takes `delay`; says what the joiner got, and how often the upstream was asked.
    async fn joined(leader: Duration, delay: Duration) -> (Result<(u32, Role), Error>, u32) {
        let singles = Arc::new(Singles::new(Tasks::new()));
        let asked = Arc::new(AtomicU32::new(0));
        let ask = |time: Duration| {
            let (singles, asked) = (Arc::clone(&singles), Arc::clone(&asked));
            let work = move || {
                let asked = asked.fetch_add(1, Ordering::Relaxed);
                async move {
                    if asked > 0 {
                        return Ok(asked);
                    }
                    let _ = tokio::time::timeout(delay, std::future::pending::<()>()).await;
                    Err(Error::Upstream(unavailable()))
                }
            };
            let deadline = Instant::now() + time;
            client(async move { singles.run(&(), deadline, work).await })
        };
        let first = ask(leader);
        turns().await;
        let second = ask(20 * SECOND).await.unwrap();
        assert!(first.await.unwrap().is_err());
        (second, asked.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_joiner_with_time_left_asks_again_when_its_leader_ran_out_of_it() {
        let (result, asked) = joined(3 * SECOND, 3 * SECOND).await;
        assert_eq!(result.unwrap(), (1, Role::Leader));
        assert_eq!(asked, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_failure_is_everyones() {
        let (result, asked) = joined(20 * SECOND, SECOND).await;
        assert!(result.is_err());
        assert_eq!(asked, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whose_time_is_up_is_told_whom_it_waited_for() {
        let singles = Singles::new(Tasks::new());
        let deadline = Instant::now() + SECOND;
        let never = std::future::pending::<Result<(), Error>>;
        let failure = singles.run(&(), deadline, never).await.unwrap_err();
        assert!(failure.to_string().starts_with("the data directory gave"));
    }
}

//! How long a client waits for an upstream while there is an old answer for it.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::oci::Digest;

/// The time that an upstream has, and what it has said in it. Time that our own disk takes is not the upstream's.
#[derive(Debug)]
pub(super) struct Hurry {
    time: watch::Sender<Time>,
    heard: Mutex<Option<Digest>>,
}

#[derive(Debug, Clone, Copy)]
enum Time {
    Runs { until: Instant },
    Stands { left: Duration },
}

impl Hurry {
    /// Begins now, and lasts for `time` besides what is spent in [`Hurry::pause`].
    pub(super) fn new(time: Duration) -> Self {
        let until = Instant::now() + time;
        Self {
            time: watch::Sender::new(Time::Runs { until }),
            heard: Mutex::default(),
        }
    }

    /// Does `work` that is not the upstream's, while its time stands still.
    pub(super) async fn pause<T>(&self, work: impl Future<Output = T>) -> T {
        let left = match *self.time.borrow() {
            Time::Runs { until } => until.saturating_duration_since(Instant::now()),
            Time::Stands { left } => left,
        };
        self.time.send_replace(Time::Stands { left });
        let done = work.await;
        let until = Instant::now() + left;
        self.time.send_replace(Time::Runs { until });
        done
    }

    /// Returns when the time is over.
    pub(super) async fn is_over(&self) {
        let mut time = self.time.subscribe();
        loop {
            let now = *time.borrow_and_update();
            match now {
                Time::Runs { until } => {
                    if timeout_at(until, time.changed()).await.is_err() {
                        return;
                    }
                }
                // Cannot fail: the sender is `self`'s.
                Time::Stands { .. } => {
                    let _ = time.changed().await;
                }
            }
        }
    }

    /// The upstream said that the tag points at `digest`.
    pub(super) fn hear(&self, digest: &Digest) {
        *self.heard.lock() = Some(digest.clone());
    }

    /// What it said last.
    pub(super) fn heard(&self) -> Option<Digest> {
        self.heard.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::sleep;

    use super::*;
    use crate::proxy::testing::{SECOND, client};

    /// When three seconds are over for one that does this first.
    async fn over_after<F: Future<Output = ()> + Send + 'static>(
        first: impl FnOnce(Arc<Hurry>) -> F,
    ) -> Duration {
        let (hurry, began) = (Arc::new(Hurry::new(3 * SECOND)), Instant::now());
        client(first(Arc::clone(&hurry)));
        hurry.is_over().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_all_that_an_upstream_is_asked_counts_and_no_other() {
        assert_eq!(over_after(|_| async {}).await, 3 * SECOND);
        let pauses = over_after(|hurry| async move {
            for _ in 0..2 {
                sleep(SECOND).await;
                hurry.pause(sleep(10 * SECOND)).await;
            }
        });
        assert_eq!(pauses.await, 23 * SECOND);
    }
}

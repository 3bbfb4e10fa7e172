//! How long a client waits for an upstream, and for our own disk, while there is an old answer for it.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::oci::Digest;

use super::STALE_TIME;

/// The time that an upstream has, and what it has said in it. Time that our own disk takes is not the upstream's, but the
/// disk has not for ever either.
#[derive(Debug)]
pub(super) struct Hurry {
    time: watch::Sender<Time>,
    /// When it is over also while the time stands.
    latest: Instant,
    heard: Mutex<Option<Digest>>,
}

#[derive(Debug, Clone, Copy)]
enum Time {
    Runs { until: Instant },
    Stands { left: Duration },
}

/// Who was waited for when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slow {
    Upstream,
    Disk,
}

/// How long our own disk may take, all in all.
const DISK_TIME: Duration = Duration::from_secs(5);

impl Hurry {
    /// Begins now, and lasts for `time` besides what is spent in [`Hurry::pause`]: [`DISK_TIME`] of that at most, and
    /// never until `deadline`, by which the old answer has to be out.
    pub(super) fn new(time: Duration, deadline: Instant) -> Self {
        let now = Instant::now();
        let until = now + time;
        let left = deadline.saturating_duration_since(now);
        let latest = deadline - STALE_TIME.min(left / 2);
        Self {
            time: watch::Sender::new(Time::Runs { until }),
            latest: latest.min(until + DISK_TIME),
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
    pub(super) async fn is_over(&self) -> Slow {
        let mut time = self.time.subscribe();
        loop {
            let now = *time.borrow_and_update();
            let (until, slow) = match now {
                Time::Runs { until } => (until.min(self.latest), Slow::Upstream),
                Time::Stands { .. } => (self.latest, Slow::Disk),
            };
            if timeout_at(until, time.changed()).await.is_err() {
                return slow;
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

    use std::future::pending;

    use tokio::time::sleep;

    use super::*;
    use crate::proxy::testing::{SECOND, client};

    /// When three seconds, of so many until the deadline, are over for one that does this first, and who was slow.
    async fn over_after<F: Future<Output = ()> + Send + 'static>(
        deadline: Duration,
        first: impl FnOnce(Arc<Hurry>) -> F,
    ) -> (Duration, Slow) {
        let began = Instant::now();
        let hurry = Arc::new(Hurry::new(3 * SECOND, began + deadline));
        client(first(Arc::clone(&hurry)));
        let slow = hurry.is_over().await;
        (began.elapsed(), slow)
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_all_that_an_upstream_is_asked_counts_and_no_other() {
        let nothing = over_after(20 * SECOND, |_| async {});
        assert_eq!(nothing.await, (3 * SECOND, Slow::Upstream));
        let pauses = over_after(20 * SECOND, |hurry| async move {
            for _ in 0..2 {
                sleep(SECOND).await;
                hurry.pause(sleep(2 * SECOND)).await;
            }
        });
        assert_eq!(pauses.await, (7 * SECOND, Slow::Upstream));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_has_a_few_seconds_and_leaves_time_for_the_old_answer() {
        for (deadline, over) in [(20, 8), (8, 6), (2, 1)] {
            let hangs = over_after(deadline * SECOND, |hurry| async move {
                hurry.pause(pending::<()>()).await;
            });
            assert_eq!(hangs.await, (over * SECOND, Slow::Disk), "{deadline}");
        }
    }
}

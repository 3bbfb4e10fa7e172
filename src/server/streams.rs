//! The streams of an HTTP/2 connection: run as tasks, watched for stalls, counted so that a connection without any does
//! not stay for ever, and one that is only asked and reset is cut.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::stall::watch_stream;
use crate::runtime::Tasks;

/// Lets hyper run the streams of one connection as tasks that the drain waits for, each cut when it stalls.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) tasks: Tasks,
    pub(super) stall_timeout: Duration,
    pub(super) activity: Arc<Activity>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let under_way = self.activity.begin();
        let limit = self.stall_timeout;
        self.tasks.spawn(async move {
            let answered = watch_stream(stream, limit).await;
            under_way.end(answered);
        });
    }
}

/// What the streams of one connection are doing.
#[derive(Debug)]
pub(super) struct Activity {
    counts: Mutex<Counts>,
    flooded: CancellationToken,
}

#[derive(Debug)]
struct Counts {
    under_way: usize,
    /// When the last one ended; at first, when the connection began.
    idle_since: Instant,
    answered: u64,
    /// Ended before their answer had begun: reset by the client.
    abandoned: u64,
}

/// A stream, until it is dropped.
struct UnderWay {
    activity: Arc<Activity>,
    answered: bool,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                under_way: 0,
                idle_since: Instant::now(),
                answered: 0,
                abandoned: 0,
            }),
            flooded: CancellationToken::new(),
        })
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.counts.lock().under_way += 1;
        UnderWay {
            activity: Arc::clone(self),
            answered: false,
        }
    }

    /// Ends when there has been no stream for `limit`.
    pub(super) async fn idle_for(&self, limit: Duration) {
        loop {
            let until = self.idle_since().unwrap_or_else(Instant::now) + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Ends when there is no stream, but not before `limit` is over.
    pub(super) async fn over_after(&self, limit: Duration) {
        loop {
            tokio::time::sleep(limit).await;
            if self.idle_since().is_some() {
                return;
            }
        }
    }

    /// Ends when the client has asked for much and waited for little of it (CVE-2023-44487).
    pub(super) async fn flooded(&self) {
        self.flooded.cancelled().await;
    }

    fn idle_since(&self) -> Option<Instant> {
        let counts = self.counts.lock();
        (counts.under_way == 0).then_some(counts.idle_since)
    }
}

impl UnderWay {
    fn end(mut self, answered: bool) {
        self.answered = answered;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counts = self.activity.counts.lock();
        counts.under_way = counts.under_way.saturating_sub(1);
        counts.idle_since = Instant::now();
        if self.answered {
            counts.answered += 1;
        } else {
            counts.abandoned += 1;
        }
        if counts.abandoned > ABANDONED + counts.answered {
            self.activity.flooded.cancel();
        }
    }
}

/// More streams than were answered, that a client may reset before their answer. Clients that give up a pull reset a
/// few dozen, and lazy pullers reset those that are answered.
const ABANDONED: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn end(activity: &Arc<Activity>, answered: bool, times: u64) {
        for _ in 0..times {
            activity.begin().end(answered);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_the_end_of_its_last_stream() {
        let activity = Activity::new();
        let started = Instant::now();
        let stream = activity.begin();
        let ending = async {
            tokio::time::sleep(10 * LIMIT).await;
            drop(stream);
        };
        tokio::join!(activity.idle_for(LIMIT), ending);
        assert_eq!(started.elapsed().as_secs(), (11 * LIMIT).as_secs());
    }

    #[tokio::test]
    async fn resets_before_answers_are_a_flood_when_they_are_many_and_most() {
        let activity = Activity::new();
        end(&activity, false, ABANDONED);
        end(&activity, true, 1000);
        end(&activity, false, 1000);
        assert!(!activity.flooded.is_cancelled());
        end(&activity, false, 1);
        assert!(activity.flooded.is_cancelled());
    }
}

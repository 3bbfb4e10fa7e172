//! Owned tasks and the order to stop.

use std::future::Future;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::Counted;

/// A group of tasks that end together. Cheap to clone; clones are the same group.
///
/// Every task of the program belongs to one. A task that may outlive a request watches [`Tasks::stopping`].
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Goes up and down with the tasks of this group and its children.
    gauge: Gauge,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty group whose tasks, and those of its children, `gauge` shows.
    pub fn counted_by(gauge: &Gauge) -> Self {
        Self {
            gauge: gauge.clone(),
            ..Self::default()
        }
    }

    /// A group that stops when this one does and can stop alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
            gauge: self.gauge.clone(),
        }
    }

    /// Runs `future` as a task of this group, until it ends by itself.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let counted = Counted::by(&self.gauge);
        self.tracker.spawn(async move {
            let _counted = counted;
            future.await;
        });
    }

    /// Runs `future` as a task of this group, dropped where it stands when the group is told to stop.
    pub fn spawn_until_stop<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(async move {
            stop.run_until_cancelled(future).await;
        });
    }

    /// Tells every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Becomes ready when the group is told to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Number of tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until every task has ended, for `grace` at most; whether they all did.
    pub async fn drained(&self, grace: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_gauge_counts_tasks_of_children_too_however_they_end() {
        let gauge = Gauge::default();
        let tasks = Tasks::counted_by(&gauge);
        let child = tasks.child();
        tasks.spawn_until_stop(std::future::pending());
        child.spawn_until_stop(std::future::pending());
        child.spawn(async { panic!("on purpose") });
        assert_eq!(gauge.get(), 3);
        tasks.stop();
        assert!(tasks.drained(GRACE).await && child.drained(GRACE).await);
        assert_eq!(gauge.get(), 0);
    }
}

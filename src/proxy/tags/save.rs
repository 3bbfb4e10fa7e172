//! Tags on their way to disk: behind the answer, one writer per tag, the newest record last.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::record::TagRecord;
use super::{Context, Held, Manifests, TagKey};

/// Writes tag records.
pub(super) struct Saver {
    ctx: Arc<Context>,
    manifests: Arc<Manifests>,
    /// A tag is here while a writer is at work for it, with what that one has to write next.
    writing: Mutex<HashMap<TagKey, Option<Job>>>,
    /// Told when a writer is through.
    through: Notify,
}

struct Job {
    record: TagRecord,
    held: Arc<Held>,
}

impl Saver {
    pub(super) fn new(ctx: Arc<Context>, manifests: Arc<Manifests>) -> Self {
        Self {
            ctx,
            manifests,
            writing: Mutex::default(),
            through: Notify::new(),
        }
    }

    /// Waits until nothing is on its way to disk for a tag.
    pub(super) async fn written(&self, key: &TagKey) {
        loop {
            let through = self.through.notified();
            if !self.writing.lock().contains_key(key) {
                return;
            }
            through.await;
        }
    }

    /// Writes `record` once its manifest, `held`, is durable. A record that still waits for its turn is passed over.
    pub(super) async fn save(self: &Arc<Self>, key: TagKey, record: TagRecord, held: Arc<Held>) {
        let job = Job { record, held };
        let job = match self.writing.lock().entry(key.clone()) {
            hash_map::Entry::Occupied(mut waiting) => {
                waiting.insert(Some(job));
                return;
            }
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(None);
                job
            }
        };
        let turn = Turn {
            saver: Arc::clone(self),
            key,
            is_over: false,
        };
        self.ctx.write_behind(turn.write(job)).await;
    }
}

/// The one writer of a tag. Dropped, at work or before, it leaves the place to another.
struct Turn {
    saver: Arc<Saver>,
    key: TagKey,
    /// Whether the place may be another's by now.
    is_over: bool,
}

impl Turn {
    async fn write(mut self, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next {
            self.write_one(&job).await;
            next = self.next();
        }
    }

    /// What came in meanwhile; with nothing left, the tag is given up before another record can slip in.
    fn next(&mut self) -> Option<Job> {
        let mut writing = self.saver.writing.lock();
        let next = writing.get_mut(&self.key).and_then(Option::take);
        if next.is_none() {
            writing.remove(&self.key);
            self.is_over = true;
            self.saver.through.notify_waiters();
        }
        next
    }

    async fn write_one(&self, job: &Job) {
        let place = &self.key.place;
        let Saver { ctx, manifests, .. } = &*self.saver;
        let saved = async {
            manifests.store(place, &job.held).await?;
            let record = serde_json::to_vec(&job.record)?;
            ctx.records.put(&self.key.record(), record).await
        };
        if let Err(error) = saved.await {
            warn!(upstream = %place.upstream, repository = %place.repository, tag = %self.key.tag, %error,
                "a tag is not stored");
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            self.saver.writing.lock().remove(&self.key);
            self.saver.through.notify_waiters();
        }
    }
}

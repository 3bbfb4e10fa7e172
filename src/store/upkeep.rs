//! Work behind everyone's back: removing what was abandoned, keeping last uses on disk, and learning at start what is
//! there. All of it paced.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::runtime::Clock;

use super::files::{Entry, Files, Kind, is_absent};
use super::layout::{self, Layout};
use super::partial::Shelf;
use super::refs::{RefKind, RefKindName};
use super::usage::{Found, Usage};

/// What the upkeep works on.
#[derive(Debug, Clone)]
pub(super) struct Upkeep {
    pub(super) files: Arc<dyn Files>,
    pub(super) layout: Layout,
    pub(super) usage: Arc<Usage>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) clock: Clock,
    /// Partials idle for so long are removed; `None`: none are.
    pub(super) abandoned_after: Option<Duration>,
    /// Held as long as the directory may be written to.
    #[expect(dead_code, reason = "held, not used")]
    pub(super) lock: Arc<File>,
}

impl Upkeep {
    /// Writes last uses now and then and once more at the end, and removes abandoned partials. Ends with `stopping`.
    pub(super) async fn run(self, stopping: CancellationToken) {
        let mut rounds = tokio::time::interval(INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(rounds.tick()).await.is_some() {
            self.write_last_uses().await;
            if let Some(age) = self.abandoned_after {
                let (shelf, now) = (Arc::clone(&self.shelf), self.clock.now());
                paced(move || shelf.remove_older(age, now)).await;
            }
        }
        self.write_last_uses().await;
    }

    async fn write_last_uses(&self) {
        let mut waiting = self.usage.take_unwritten();
        while !waiting.is_empty() {
            let chunk = waiting.split_off(waiting.len().saturating_sub(CHUNK));
            let this = self.clone();
            paced(move || {
                for (digest, time) in chunk {
                    let Some(path) = this.layout.blob(&digest) else {
                        continue;
                    };
                    if let Err(error) = this.files.set_modified(&path, time)
                        && !is_absent(&error)
                    {
                        tracing::debug!(path = %path.display(), %error, "last use not written");
                    }
                }
            })
            .await;
        }
    }

    /// Finds all committed blobs.
    pub(super) async fn scan(self) {
        let started = Instant::now();
        for algorithm in layout::ALGORITHMS {
            let dir = self.layout.blobs_dir().join(algorithm);
            let (this, list_dir) = (self.clone(), dir.clone());
            let shards = paced(move || this.entries(&list_dir)).await;
            if shards.is_none() {
                self.usage.overlooked();
            }
            for shard in shards.unwrap_or_default() {
                if shard.kind != Kind::Directory {
                    if shard.kind != Kind::File {
                        // A link leads to blobs, perhaps.
                        self.usage.overlooked();
                    }
                    foreign(&dir.join(&shard.name), 1);
                    continue;
                }
                let (this, dir) = (self.clone(), dir.clone());
                let scanned = paced(move || this.scan_shard(algorithm, &dir, &shard.name));
                if scanned.await.is_none() {
                    self.usage.overlooked();
                }
            }
        }
        self.usage.set_scanned();
        let totals = self.usage.totals();
        tracing::info!(
            blobs = totals.blobs,
            size_bytes = totals.bytes,
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "stored blobs counted"
        );
        self.mark_manifests().await;
        let usage = Arc::clone(&self.usage);
        paced(move || usage.put_in_order()).await;
    }

    /// Finds out which blobs are manifests: those that a record says so of.
    async fn mark_manifests(&self) {
        let mut dirs = vec![self.layout.refs_dir()];
        while let Some(dir) = dirs.pop() {
            let this = self.clone();
            let below = paced(move || this.mark_below(&dir)).await;
            dirs.extend(below.unwrap_or_default());
        }
    }

    /// Marks the manifests that records in this directory name. Returns the directories in it that may have more.
    fn mark_below(&self, dir: &Path) -> Vec<PathBuf> {
        let entries = self.files.list(dir).unwrap_or_else(|error| {
            if !is_absent(&error) {
                tracing::warn!(
                    path = %dir.display(),
                    %error,
                    "cannot list records; what they say are manifests is evicted like layers, check owner and mode"
                );
            }
            Vec::new()
        });
        if dir.file_name().is_some_and(layout::is_manifest_folder) {
            let kinds = entries.iter().filter_map(|entry| {
                let kind = layout::record_kind(RefKindName::Manifest, &entry.name)?;
                match kind {
                    RefKind::Manifest(digest) => Some(digest),
                    _ => None,
                }
            });
            self.usage.mark_manifests(&kinds.collect::<Vec<_>>());
            return Vec::new();
        }
        let leads_on = |entry: &Entry| {
            let name = entry.name.to_str().unwrap_or_default();
            entry.kind == Kind::Directory
                && (!layout::is_record_folder(name) || layout::is_manifest_folder(&entry.name))
        };
        let below = entries.into_iter().filter(leads_on);
        below.map(|entry| dir.join(entry.name)).collect()
    }

    /// Entries of a directory of blobs; none, logged, where it cannot be listed.
    fn entries(&self, dir: &Path) -> Vec<Entry> {
        self.files.list(dir).unwrap_or_else(|error| {
            // A directory for an algorithm need not be there; of another, it may be an entry that has gone.
            if !is_absent(&error) || dir.parent() != Some(&*self.layout.blobs_dir()) {
                self.usage.overlooked();
            }
            if !is_absent(&error) {
                tracing::warn!(
                    path = %dir.display(),
                    %error,
                    "cannot list blobs; they are served but not counted, check owner and mode"
                );
            }
            Vec::new()
        })
    }

    fn scan_shard(&self, algorithm: &str, dir: &Path, shard: &OsString) {
        let dir = dir.join(shard);
        let mut found = Vec::new();
        let mut foreign_names = 0_usize;
        for entry in self.entries(&dir) {
            let digest = layout::blob_digest(algorithm, shard, &entry.name);
            let Some(digest) = digest.filter(|_| entry.kind == Kind::File) else {
                foreign_names += 1;
                continue;
            };
            match self.files.stat(&dir.join(&entry.name)) {
                Ok(stat) => found.push(Found {
                    digest,
                    len: stat.len,
                    used: stat.modified,
                }),
                Err(error) if is_absent(&error) => {}
                // It is not counted; opening it will tell.
                Err(_) => self.usage.overlooked(),
            }
        }
        if foreign_names > 0 {
            foreign(&dir, foreign_names);
        }
        self.usage.add_found(found);
    }
}

/// Runs `work` on a blocking thread, then rests for as long as it took, so that the disk is there for others half of
/// the time at least.
async fn paced<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let started = Instant::now();
    let done = tokio::task::spawn_blocking(work).await;
    tokio::time::sleep(started.elapsed().min(LONGEST_REST)).await;
    match done {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "upkeep broke off; please report this");
            None
        }
    }
}

fn foreign(path: &Path, count: usize) {
    tracing::warn!(
        path = %path.display(),
        count,
        "not put there by layby; left alone and not counted"
    );
}

/// Last uses are written so often; a crash loses this much of them.
const INTERVAL: Duration = Duration::from_secs(10);

/// Last uses written in one go.
const CHUNK: usize = 256;

/// Keeps one slow answer of the disk from stopping the upkeep for long.
const LONGEST_REST: Duration = Duration::from_millis(200);

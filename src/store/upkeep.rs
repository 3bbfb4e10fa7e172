//! Work behind everyone's back: writing pages back, removing what nobody commits, keeping last uses on disk, and
//! learning at start what is there. All of it paced.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::files::{Entry, Files, Kind, is_absent};
use super::layout::{self, Layout};
use super::stage::{WriteBack, discard};
use super::usage::{Found, Usage};

/// Something to be done soon. Each stage has at most one of each kind waiting.
#[derive(Debug)]
pub(super) enum Chore {
    /// Write back what a stage has written so far.
    WriteBack {
        path: PathBuf,
        state: Arc<WriteBack>,
    },
    /// Remove the file of a stage that was dropped; closing it may free it.
    Discard { path: PathBuf, file: Arc<File> },
}

impl Chore {
    fn run(self, files: &dyn Files) {
        match self {
            Self::WriteBack { path, state } => state.run(files, &path),
            Self::Discard { path, file } => {
                discard(files, &path);
                drop(file);
            }
        }
    }
}

/// What the upkeep works on.
#[derive(Debug, Clone)]
pub(super) struct Upkeep {
    pub(super) files: Arc<dyn Files>,
    pub(super) layout: Layout,
    pub(super) usage: Arc<Usage>,
    /// Held as long as the directory may be written to.
    #[expect(dead_code, reason = "held, not used")]
    pub(super) lock: Arc<File>,
}

impl Upkeep {
    /// Does chores as they come, and writes last uses now and then. Ends when there is nobody left to give it chores,
    /// or with `stopping`; finishes what it was given.
    pub(super) async fn run(
        self,
        mut chores: UnboundedReceiver<Chore>,
        stopping: CancellationToken,
    ) {
        let mut workers = JoinSet::new();
        let mut last_uses = tokio::time::interval(LAST_USE_INTERVAL);
        last_uses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_open = true;
        loop {
            tokio::select! {
                biased;
                chore = chores.recv() => match chore {
                    Some(chore) => self.start(chore, &mut workers).await,
                    None => break,
                },
                () = stopping.cancelled(), if is_open => {
                    chores.close();
                    is_open = false;
                }
                _ = last_uses.tick(), if is_open => self.write_last_uses().await,
            }
        }
        while workers.join_next().await.is_some() {}
        self.write_last_uses().await;
    }

    async fn start(&self, chore: Chore, workers: &mut JoinSet<()>) {
        while workers.len() >= MOST_WORKERS {
            workers.join_next().await;
        }
        while workers.try_join_next().is_some() {}
        let files = Arc::clone(&self.files);
        workers.spawn_blocking(move || chore.run(&*files));
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
            let shards = paced(move || entries(&*this.files, &list_dir)).await;
            for shard in shards.unwrap_or_default() {
                if shard.kind != Kind::Directory {
                    foreign(&dir.join(&shard.name), 1);
                    continue;
                }
                let (this, dir) = (self.clone(), dir.clone());
                paced(move || this.scan_shard(algorithm, &dir, &shard.name)).await;
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
    }

    fn scan_shard(&self, algorithm: &str, dir: &Path, shard: &OsString) {
        let dir = dir.join(shard);
        let mut found = Vec::new();
        let mut foreign_names = 0_usize;
        for entry in entries(&*self.files, &dir) {
            let digest = layout::blob_digest(algorithm, shard, &entry.name);
            let Some(digest) = digest.filter(|_| entry.kind == Kind::File) else {
                foreign_names += 1;
                continue;
            };
            // What cannot be looked at, or is gone already, is not counted; opening it will tell.
            if let Ok(stat) = self.files.stat(&dir.join(&entry.name)) {
                found.push(Found {
                    digest,
                    len: stat.len,
                    used: stat.modified,
                });
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

/// Entries of a directory; none, logged, where it cannot be listed.
fn entries(files: &dyn Files, dir: &Path) -> Vec<Entry> {
    match files.list(dir) {
        Ok(entries) => entries,
        Err(error) => {
            report_list(dir, &error);
            Vec::new()
        }
    }
}

fn report_list(dir: &Path, error: &io::Error) {
    if !is_absent(error) {
        tracing::warn!(
            path = %dir.display(),
            %error,
            "cannot list blobs; they are served but not counted, check owner and mode"
        );
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
const LAST_USE_INTERVAL: Duration = Duration::from_secs(10);

/// Last uses written in one go.
const CHUNK: usize = 256;

/// Chores done at once.
const MOST_WORKERS: usize = 4;

/// Keeps one slow answer of the disk from stopping the upkeep for long.
const LONGEST_REST: Duration = Duration::from_millis(200);

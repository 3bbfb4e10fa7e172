//! Content-addressed disk: committed blobs, blobs on their way in, small records about both.
//!
//! There is no database: names are keys, rename is commit, unlink is removal, and a copy of the directory is a copy of
//! the cache.
//!
//! ```text
//! <data>/layby.json                                  format version, instance id
//! <data>/layby.lock                                  locked while the directory is in use
//! <data>/blobs/<algorithm>/<first two>/<encoded>     committed, immutable, last use in its mtime
//! <data>/pins.json, imports.json, statistics.json    what outlives a restart besides content
//! <data>/scrub.json, totals.json                     how far the scrub is; how much an orderly end has left
//! <data>/admin.token                                 who holds it may administrate; readable by its owner alone
//! <data>/damaged/<name>                              what turned out not to match its name, moved aside
//! <data>/partial/<64 digits>                         blobs being fetched, which a later fetch may go on with
//! <data>/partial/<64 digits>.log                     which of their bytes are good (see `partial/log.rs`)
//! <data>/partial/<16 digits>                         whatever else is being written; removed at start
//! <data>/refs/<upstream>/<repository>/_tags/<tag>.json
//!                                    /_manifests/<digest>.json
//!                                    /_blobs/<digest>
//!                                    /_lists/<hash>.json
//! ```
//!
//! What it promises: what [`Store::commit`] and [`Store::put_ref`] acknowledged survives a crash and a power loss;
//! what is visible is whole; what [`Store::resume`] calls present is what was written; whatever else lies in the directory is reported and never in the way. It verifies nothing
//! against its digest but what comes through [`Store::put_blob`]: the fetch has hashed what it commits.
//!
//! It knows no upstream, no client and no meaning of a record. Imports `oci`, `config` values, `telemetry` and
//! `runtime`.

mod batch;
mod change;
mod check;
mod chores;
mod commit;
mod damaged;
mod evict;
mod files;
mod keep;
mod layout;
mod look;
mod notes;
mod open;
mod orphan;
mod partial;
mod refs;
mod room;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod upkeep;
mod usage;
mod walk;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::{MinFree, UpstreamName};
use crate::oci::{Digest, RepoName};
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;

pub use check::{Begun, BlobCheck, BlobShard, Faulty, SetAside, ShardEntry, Soundness};
pub use evict::Evicted;
pub use files::{Disk, Entries, Entry, FileId, Files, Kind, Space, Stat};
pub use look::{BlobHold, BlobLook};
pub use notes::Note;
pub use open::{Formats, OpenError, Step, is_in_use};
pub use orphan::RefLook;
pub use partial::{Block, BootId, LogHeader, MAX_BLOCK, StageKey, StagedBlob, checksum};
pub use refs::{MAX_REF_LEN, RefKey, RefKind, RefKindName, RefWalk};
pub use room::RoomError;
pub use token::read_admin_token;
#[doc(hidden)]
pub use usage::IndexProbe;
pub use usage::Totals;
pub use walk::PassedOver;

use batch::Batcher;
use change::{Change, Expected, Seen};
use chores::Chores;
use commit::Committer;
use evict::{Asks, Evictor};
use files::open_regular;
use layout::Layout;
use partial::{ABANDONED_AFTER, Idle, Partials, Shelf};
use room::Room;
use upkeep::Upkeep;
use usage::{Reading, Usage};

/// What an operator decides about the store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Most bytes of blobs, finished and unfinished; `None`: no limit.
    pub max_size: Option<u64>,
    /// What must stay free on the file system.
    pub min_free: MinFree,
    /// What nobody has used for so long is evicted; `None`: nothing is for its age.
    pub max_age: Option<Duration>,
    /// Whether blobs are evicted without being told: not by who only looks, and not where nothing could be fetched anew.
    pub evicts: bool,
    /// How long to wait for a data directory that another process uses.
    pub lock_wait: Duration,
    /// Nothing can be fetched anew: a partial is kept however long nobody has gone on with it.
    pub offline: bool,
}

/// The data directory in use.
#[derive(Debug)]
pub struct Store {
    files: Arc<dyn Files>,
    layout: Layout,
    clock: Clock,
    usage: Arc<Usage>,
    partials: Partials,
    committer: Committer,
    evictor: Evictor,
    instance_id: String,
    /// Whether blobs go to make room for others.
    evicts: bool,
    /// Most bytes in `damaged/`.
    most_aside: u64,
}

/// A committed blob, open. Stays readable while it is held, whatever happens to its name.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    /// Its file, for reading at positions.
    pub file: Arc<File>,
    /// Its length in bytes.
    pub len: u64,
    /// It is not evicted as long as somebody has this.
    reading: Option<Arc<Reading>>,
}

impl StoredBlob {
    /// What counts the file as being read. Whoever keeps the file keeps this, and lets go of it last.
    pub fn hold(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        let reading = self.reading.clone()?;
        Some(reading)
    }
}

impl Store {
    /// Takes the data directory into use, until `tasks` have ended. Waits for [`StoreOptions::lock_wait`] while another
    /// process uses it, and removes what the last life left unfinished and nobody can go on with. What is stored is counted in the background
    /// (see [`Store::scanned`]).
    ///
    /// When `tasks` is told to stop, what was asked for is finished and what is asked for later fails; so it is stopped
    /// after all who commit.
    pub async fn open(
        options: StoreOptions,
        files: Arc<dyn Files>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_as(Formats::default(), options, files, clock, metrics, tasks).await
    }

    /// The same for a program that knows these formats of a data directory, and leads an older one to the newest.
    pub async fn open_as(
        formats: Formats,
        options: StoreOptions,
        files: Arc<dyn Files>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        let layout = Layout::new(options.data_dir);
        let abandoned_after = (!options.offline).then_some(ABANDONED_AFTER);
        let opened = open::open(
            &files,
            &layout,
            formats,
            &clock,
            options.lock_wait,
            abandoned_after,
        )
        .await?;
        let lock = Arc::new(opened.lock);
        let usage = Arc::new(Usage::new(Arc::clone(&metrics), opened.expected));
        let shelf = Arc::new(Shelf::new(Arc::clone(&files), layout.clone()));
        let (asks, asked) = Asks::new();
        let room = Arc::new(Room::new(
            options.max_size,
            options.min_free,
            layout.root().to_owned(),
            Arc::clone(&files),
            Arc::clone(&usage),
            Arc::clone(&shelf),
            asks,
        ));
        for left in opened.partials {
            let space = Arc::new(room.adopt(left.allocated));
            shelf.adopt(
                left.key,
                Idle {
                    since: left.since,
                    space,
                },
            );
        }
        let batcher = Batcher::new(
            Arc::clone(&files),
            layout.clone(),
            Arc::clone(&usage),
            Arc::clone(&shelf),
            clock.clone(),
            Arc::clone(&lock),
        );
        let upkeep = Upkeep {
            files: Arc::clone(&files),
            layout: layout.clone(),
            usage: Arc::clone(&usage),
            shelf: Arc::clone(&shelf),
            clock: clock.clone(),
            abandoned_after,
            lock: Arc::clone(&lock),
        };
        let chores = Chores {
            files: Arc::clone(&files),
            clock: clock.clone(),
            lock: Arc::clone(&lock),
        };
        let (give_chore, waiting_chores) = mpsc::unbounded_channel();
        tasks.spawn_until_stop(upkeep.clone().scan());
        tasks.spawn(upkeep.run(tasks.stopping()));
        tasks.spawn(chores.run(waiting_chores, tasks.stopping()));
        let committer = Committer::start(batcher, &tasks);
        let evictor = Evictor {
            usage: Arc::clone(&usage),
            room: Arc::clone(&room),
            committer: committer.clone(),
            layout: layout.clone(),
            clock: clock.clone(),
            metrics,
            max_age: options.max_age,
        };
        if options.evicts {
            tasks.spawn(evictor.clone().run(asked, tasks.stopping()));
        }
        let partials = Partials {
            files: Arc::clone(&files),
            layout: layout.clone(),
            room,
            shelf,
            chores: give_chore,
            boot: opened.boot,
            lock: Arc::downgrade(&lock),
        };
        Ok(Arc::new(Self {
            committer,
            evictor,
            files,
            layout,
            clock,
            usage,
            partials,
            instance_id: opened.instance_id,
            evicts: options.evicts,
            most_aside: damaged::most(options.max_size),
        }))
    }

    /// Tells this instance from all others; the same as long as the data directory is.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// How much is stored, as far as it has been counted.
    pub fn totals(&self) -> Totals {
        self.usage.totals()
    }

    /// Whether everything that was there at start has been counted.
    pub fn is_scanned(&self) -> bool {
        *self.usage.scanned().borrow()
    }

    /// Waits until everything that was there at start has been counted.
    pub async fn scanned(&self) {
        // The sender lives as long as the store.
        let _ = self.usage.scanned().wait_for(|&done| done).await;
    }

    /// The committed blob, and notes its use. Blocks shortly. `None` as well for what cannot be the blob, which is
    /// logged: not a file, not readable, shorter than when it was stored. A commit replaces it.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<Option<StoredBlob>> {
        let Some(path) = self.layout.blob(digest) else {
            return Ok(None);
        };
        let Some((file, stat)) = open_regular(&*self.files, &path)? else {
            return Ok(None);
        };
        if self.is_cut(digest, stat.len) {
            tracing::warn!(
                path = %path.display(),
                size_bytes = stat.len,
                "blob has lost its end; it is fetched anew, check the disk"
            );
            return Ok(None);
        }
        let now = self.clock.now();
        let reading = self.usage.open(digest, stat.len, stat.modified, now);
        Ok(Some(StoredBlob {
            file: Arc::new(file),
            len: stat.len,
            reading: reading.map(Arc::new),
        }))
    }

    /// A new place for a blob of `len` bytes; `None`: as many as come, and room is taken as they do. What lay under `key`
    /// is removed, once whoever held it has closed it. The room is claimed, and space for the first bytes taken from the
    /// disk.
    pub async fn stage(&self, key: &StageKey, len: Option<u64>) -> Result<StagedBlob, RoomError> {
        self.partials.stage(*key, len).await
    }

    /// What an earlier stage has left under `key`, once whoever held it has closed it, with the bytes that are still good:
    /// those that were written in this run of the operating system, also by a process that was killed, and of those before
    /// it, what the disk gives back as it was written. `None` where there are none.
    pub async fn resume(&self, key: &StageKey) -> Result<Option<StagedBlob>, RoomError> {
        self.partials.resume(*key).await
    }

    /// Makes the stage the blob `digest`; the caller has verified its `len` bytes. Durable and visible when it returns;
    /// carried out even when nobody waits any more. Returns its first use, which is this, unless it was stored before.
    pub async fn commit(
        &self,
        stage: &StagedBlob,
        len: u64,
        digest: &Digest,
    ) -> io::Result<Option<SystemTime>> {
        let (target, at) = (self.blob_path(digest)?, self.clock.now());
        let change = Change::Commit {
            stage: stage.stage().begin_commit()?,
            len,
            digest: digest.clone(),
            target,
            at,
        };
        let is_new = self.committer.make(change).await?;
        Ok(is_new.then_some(at))
    }

    /// Stores small content, such as a manifest, after checking it. [`io::ErrorKind::StorageFull`] where the limits
    /// leave no room.
    pub async fn put_blob(&self, bytes: Bytes, digest: &Digest) -> io::Result<()> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let stage = self.partials.scratch(len).await?;
        let expected = digest.clone();
        let staged = tokio::task::spawn_blocking(move || {
            if Digest::of(expected.algorithm(), &bytes).as_ref() != Some(&expected) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("content to be stored does not match {expected}"),
                ));
            }
            stage.write_at(0, &bytes)?;
            Ok(stage)
        });
        let stage = staged.await.map_err(io::Error::other)??;
        self.commit(&stage, len, digest).await.map(|_| ())
    }

    /// Removes a blob; whether there was one. Those who hold it open keep it.
    pub async fn remove_blob(&self, digest: &Digest) -> io::Result<bool> {
        self.remove_blob_if(digest, None).await
    }

    /// Removes a blob that has `len` bytes and cannot be what its name says; whether there was one. One that was committed
    /// in its place stays.
    pub async fn discard_blob(&self, digest: &Digest, len: u64) -> io::Result<bool> {
        self.remove_blob_if(digest, Some(len)).await
    }

    async fn remove_blob_if(&self, digest: &Digest, of_len: Option<u64>) -> io::Result<bool> {
        let Some(target) = self.layout.blob(digest) else {
            return Ok(false);
        };
        let digest = digest.clone();
        self.committer
            .make(Change::RemoveBlob {
                digest,
                target,
                of_len,
            })
            .await
    }

    /// The record; `None` as well for a file that cannot be one, which is logged. Blocks shortly.
    pub fn get_ref(&self, key: &RefKey) -> io::Result<Option<Vec<u8>>> {
        refs::read(&*self.files, &self.layout.record(key))
    }

    /// Writes a record. Durable when it returns. What it names must be durable before.
    pub async fn put_ref(&self, key: &RefKey, bytes: Vec<u8>) -> io::Result<()> {
        self.put(key, Expected::Whatever, bytes).await.map(|_| ())
    }

    /// Writes a record if it is `expected` (`None`: missing) at that moment; whether it was.
    pub async fn compare_and_put_ref(
        &self,
        key: &RefKey,
        expected: Option<&[u8]>,
        bytes: Vec<u8>,
    ) -> io::Result<bool> {
        let expected = Expected::Exactly(expected.map(<[u8]>::to_vec));
        self.put(key, expected, bytes).await
    }

    async fn put(&self, key: &RefKey, expected: Expected, bytes: Vec<u8>) -> io::Result<bool> {
        let change = Change::PutRecord {
            target: self.layout.record(key),
            expected,
            bytes,
        };
        let is_put = self.committer.make(change).await?;
        if let RefKind::Manifest(digest) = &key.kind {
            self.usage.mark_manifests(std::slice::from_ref(digest));
        }
        Ok(is_put)
    }

    /// Removes a record, and the directories that it leaves empty; whether there was one.
    pub async fn remove_ref(&self, key: &RefKey) -> io::Result<bool> {
        self.remove_ref_if(key, None).await
    }

    /// The same if the record is `seen` at that moment; whether it was.
    pub async fn compare_and_remove_ref(&self, key: &RefKey, seen: &[u8]) -> io::Result<bool> {
        let seen = Seen::Bytes(seen.to_vec());
        self.remove_ref_if(key, Some(seen)).await
    }

    async fn remove_ref_if(&self, key: &RefKey, only_if: Option<Seen>) -> io::Result<bool> {
        let target = self.layout.record(key);
        let change = Change::RemoveRecord { target, only_if };
        self.committer.make(change).await
    }

    /// The records of one kind of a repository, in no order. Blocks for as long as the directory is large.
    pub fn list_refs(
        &self,
        upstream: &UpstreamName,
        repository: &RepoName,
        kind: RefKindName,
    ) -> io::Result<Vec<RefKey>> {
        refs::list(&*self.files, &self.layout, upstream, repository, kind)
    }

    /// The same as a walk, for a directory that may be too large to be in memory whole. Blocks shortly.
    pub fn walk_refs(
        &self,
        upstream: &UpstreamName,
        repository: &RepoName,
        kind: RefKindName,
    ) -> io::Result<RefWalk> {
        RefWalk::begin(&*self.files, &self.layout, upstream, repository, kind)
    }

    /// Every repository that has a record, in no order. Walks the directories: blocks for as long as they are many.
    pub fn repositories(&self) -> io::Result<Vec<(UpstreamName, RepoName)>> {
        refs::repositories(&*self.files, &self.layout)
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.layout.root()
    }

    fn blob_path(&self, digest: &Digest) -> io::Result<PathBuf> {
        self.layout.blob(digest).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{digest} cannot be verified, and so is not stored"),
            )
        })
    }
}

//! A blob on its way in: a file in `partial/`, the room it may take, and how fast it reaches the disk.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::shelf::{Idle, remove};
use super::write_back::WriteBack;
use super::writing::Writing;
use crate::store::chores::Chore;
use crate::store::files::{Files, at};
use crate::store::room::{Reservation, Room};
use crate::store::usage::Reading;

/// A place to write a blob to. Dropped without a commit and without being closed, it is closed as
/// [`StagedBlob::keep`] does.
///
/// Writes come from one thread at a time; what was written may be read from any, also when it is closed or committed.
pub struct StagedBlob {
    stage: Arc<Stage>,
}

impl StagedBlob {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            stage: Arc::new(stage),
        }
    }

    pub(in crate::store) fn stage(&self) -> &Arc<Stage> {
        &self.stage
    }

    /// The length it was made for.
    pub fn len(&self) -> Option<u64> {
        self.stage.len
    }

    /// Whether it was made for no bytes.
    pub fn is_empty(&self) -> bool {
        self.stage.len == Some(0)
    }

    /// The bytes that it held when it was resumed: sorted, disjoint, never empty, and checked to be what was written.
    pub fn present(&self) -> &[Range<u64>] {
        &self.stage.present
    }

    /// Writes `bytes` at `offset`, as [`StagedBlob::write_parts_at`] does.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_parts_at(offset, &[IoSlice::new(bytes)])
    }

    /// Writes `parts`, one behind the other, from `offset` on. Blocks, for longer when the disk is slower than the writer:
    /// some hundred MiB at most wait to reach it. [`io::ErrorKind::StorageFull`] where there is no room.
    pub fn write_parts_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.stage.begin()?.write(offset, parts)
    }

    /// Fills `buffer` from `offset`, of bytes that were written. Blocks.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.stage
            .files
            .read_at(&self.stage.file, offset, buffer)
            .map_err(|error| at("read", &self.stage.path, &error))
    }

    /// The file, for reading at positions; it stays readable after commit and removal.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.stage.file)
    }

    /// What counts the file as open, and has it freed off the async threads. Whoever keeps the file keeps this, and lets go
    /// of it last.
    pub fn hold(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::<Stage>::clone(&self.stage)
    }

    /// Ends the writing and keeps what is there for a later fetch, if it can be told good. Never blocks.
    pub fn keep(&self) {
        self.stage.end(Fate::Keep);
    }

    /// Ends the writing and throws away what is there. Never blocks.
    pub fn discard(&self) {
        self.stage.end(Fate::Discard);
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        self.keep();
    }
}

impl fmt::Debug for StagedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedBlob")
            .field("path", &self.stage.path)
            .finish_non_exhaustive()
    }
}

/// What a [`StagedBlob`], its commit and its chores share.
#[derive(Debug)]
pub(in crate::store) struct Stage {
    pub(super) files: Arc<dyn Files>,
    pub(super) room: Arc<Room>,
    pub(super) chores: UnboundedSender<Chore>,
    pub(super) path: PathBuf,
    /// Where what was written is noted; `None`: nowhere, since it is not kept.
    pub(super) log: Option<PathBuf>,
    pub(super) file: Arc<File>,
    pub(super) len: Option<u64>,
    pub(super) present: Vec<Range<u64>>,
    /// The room that the file takes, or may.
    pub(super) space: Arc<Reservation>,
    pub(super) write_back: Arc<WriteBack>,
    pub(super) phase: Mutex<Phase>,
    /// The file has lost its name, and its bytes are freed with it.
    pub(super) is_removed: AtomicBool,
    /// Once it is a blob, that is being read by whoever holds this.
    pub(super) reading: OnceLock<Reading>,
}

/// Whether it may be written to.
#[derive(Debug)]
pub(super) enum Phase {
    /// Yes.
    Open(Box<Writing>),
    /// Somebody does, or it is being committed; afterwards it is to be ended like this.
    Busy(Option<Fate>),
    /// Never again.
    Ended,
}

/// What becomes of a stage that is not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Fate {
    /// A later fetch may go on from it.
    Keep,
    /// It is removed.
    Discard,
}

impl Stage {
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length so far. Blocks.
    pub(in crate::store) fn len_so_far(&self) -> io::Result<u64> {
        let stat = self.files.stat_file(&self.file);
        Ok(stat.map_err(|error| at("look at", &self.path, &error))?.len)
    }

    /// Makes what was written durable. Blocks.
    pub(in crate::store) fn sync(&self) -> io::Result<()> {
        self.write_back.sync(&*self.files, &self.path, &self.file)
    }

    /// Takes the stage out of its writer's hands, to be committed.
    pub(in crate::store) fn begin_commit(self: &Arc<Self>) -> io::Result<Committing> {
        self.begin().map(Committing)
    }

    fn begin(self: &Arc<Self>) -> io::Result<Turn> {
        let mut phase = self.phase.lock();
        match std::mem::replace(&mut *phase, Phase::Busy(None)) {
            Phase::Open(writing) => Ok(Turn {
                stage: Arc::clone(self),
                writing: Some(writing),
            }),
            other => {
                let why = match other {
                    Phase::Ended => "it is committed or closed, and never changes",
                    _ => "it is being written to or committed",
                };
                *phase = other;
                Err(io::Error::other(format!(
                    "cannot write to {}: {why}",
                    self.path.display()
                )))
            }
        }
    }

    fn give_back(self: &Arc<Self>, writing: Box<Writing>) {
        let mut phase = self.phase.lock();
        match *phase {
            Phase::Busy(Some(fate)) => {
                *phase = Phase::Ended;
                drop(phase);
                self.hand_over(writing, fate);
            }
            _ => *phase = Phase::Open(writing),
        }
    }

    fn end(self: &Arc<Self>, fate: Fate) {
        let mut phase = self.phase.lock();
        match std::mem::replace(&mut *phase, Phase::Ended) {
            Phase::Open(writing) => {
                drop(phase);
                self.hand_over(writing, fate);
            }
            Phase::Busy(earlier) => *phase = Phase::Busy(Some(earlier.unwrap_or(fate))),
            Phase::Ended => {}
        }
    }

    fn hand_over(self: &Arc<Self>, writing: Box<Writing>, fate: Fate) {
        let chore = Chore::End {
            stage: Arc::clone(self),
            writing,
            fate,
        };
        if let Err(unsent) = self.chores.send(chore)
            && self.log.is_none()
        {
            // The store has stopped. What has a name of its own is for the next start; a random one is nobody else's.
            self.remove();
            drop(unsent);
        }
    }

    /// Ends the writing: the chore behind [`StagedBlob::keep`] and [`StagedBlob::discard`]. Blocks.
    pub(in crate::store) fn close(&self, writing: &mut Writing, fate: Fate, now: SystemTime) {
        let is_lost = fate == Fate::Discard || self.write_back.has_failed();
        if is_lost || !writing.is_worth_keeping(self) {
            return self.remove();
        }
        self.settle();
        if let Some(hold) = &writing.hold {
            hold.leave(Some(Idle {
                since: now,
                space: Arc::clone(&self.space),
            }));
        }
    }

    /// Closes the file here and now. Blocks for as long as it takes to free it.
    pub(in crate::store) fn free(self) {
        self.is_removed.store(false, Ordering::Release);
    }

    fn remove(&self) {
        let log = self.log.as_ref().map(|log| remove(&*self.files, log));
        let removed = log.unwrap_or(Ok(()));
        if let Err(error) = removed.and_then(|()| remove(&*self.files, &self.path)) {
            tracing::warn!(%error, "an unfinished file cannot be removed; the next start will try again");
        }
        self.is_removed.store(true, Ordering::Release);
    }

    /// Notes what the file system counts as taken by the file.
    pub(super) fn land(&self) {
        if let Ok(stat) = self.files.stat_file(&self.file) {
            self.space.land(stat.allocated);
        }
    }

    /// Claims no more room than the file takes.
    fn settle(&self) {
        if let Ok(stat) = self.files.stat_file(&self.file) {
            self.space.settle(stat.allocated);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_removed.load(Ordering::Acquire) {
            return;
        }
        // Off this thread, which may be an async one: freeing a large file takes a while. When the store has stopped, it
        // is freed here.
        let _ = self.chores.send(Chore::Free {
            file: Arc::clone(&self.file),
            space: Arc::clone(&self.space),
        });
    }
}

/// The only one who writes to a stage at the moment.
#[derive(Debug)]
struct Turn {
    stage: Arc<Stage>,
    /// There until it is dropped or the stage is committed.
    writing: Option<Box<Writing>>,
}

impl Turn {
    fn write(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        match &mut self.writing {
            Some(writing) => writing.write(&self.stage, offset, parts),
            None => Ok(()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.stage.give_back(writing);
        }
    }
}

/// A stage that is being committed. Dropped before it is, the stage is as it was before.
#[derive(Debug)]
pub(in crate::store) struct Committing(Turn);

impl Committing {
    pub(in crate::store) fn stage(&self) -> &Stage {
        &self.0.stage
    }

    /// Whether there is much that the disk has not taken yet.
    pub(in crate::store) fn is_behind(&self) -> bool {
        let Turn { stage, writing } = &self.0;
        writing.as_ref().is_some_and(|writing| writing.is_behind()) || stage.write_back.is_busy()
    }

    /// Notes that the file has left `partial/` for good: no more writes, no more claim on room, no log. Blocks.
    pub(in crate::store) fn committed(&mut self, reading: Option<Reading>) {
        // Held until all is done: it frees the id.
        let Some(_writing) = self.0.writing.take() else {
            return;
        };
        let stage = &self.0.stage;
        if let Some(reading) = reading {
            // It is committed once.
            let _ = stage.reading.set(reading);
        }
        *stage.phase.lock() = Phase::Ended;
        stage.space.release();
        if let Some(log) = &stage.log
            && let Err(error) = remove(&*stage.files, log)
        {
            tracing::warn!(%error, "the log of a finished blob cannot be removed; the next start will try again");
        }
    }
}

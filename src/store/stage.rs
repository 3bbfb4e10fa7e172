//! A blob on its way in: a file in `partial/`, the room it may take, and how fast it reaches the disk.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::files::{Files, at};
use super::room::Reservation;
use super::upkeep::Chore;

/// A place to write a blob to. Its file is removed when it is dropped without a commit.
///
/// Writes come from one thread at a time; what was written may be read from any.
pub struct StagedBlob {
    stage: Arc<Stage>,
}

impl StagedBlob {
    pub(super) fn new(stage: Stage) -> Self {
        Self {
            stage: Arc::new(stage),
        }
    }

    pub(super) fn stage(&self) -> &Arc<Stage> {
        &self.stage
    }

    /// Writes `bytes` at `offset`. Blocks, for longer when the disk is slower than the writer: no more than two
    /// windows wait to reach it. [`io::ErrorKind::StorageFull`] where the limits leave no room.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.stage.write_at(offset, bytes)
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
}

impl fmt::Debug for StagedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedBlob")
            .field("path", &self.stage.path)
            .finish_non_exhaustive()
    }
}

/// What a [`StagedBlob`] and its commit share.
#[derive(Debug)]
pub(super) struct Stage {
    files: Arc<dyn Files>,
    path: PathBuf,
    file: Arc<File>,
    chores: UnboundedSender<Chore>,
    /// Locked by the writer, and once by the commit after it.
    progress: Mutex<Progress>,
    /// A write-back under way.
    write_back: Arc<WriteBack>,
    /// A sync failed: what the disk holds is unknown, for good.
    failed: AtomicBool,
    committed: AtomicBool,
}

#[derive(Debug)]
struct Progress {
    room: Reservation,
    /// The length announced.
    len: Option<u64>,
    /// Bytes written.
    written: u64,
    /// Up to here the file system has set space aside.
    allocated: u64,
    /// Bytes written since the last write-back.
    dirty: u64,
}

/// Tells a writer whether its previous window is still on its way to the disk.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    busy: AtomicBool,
}

impl Stage {
    pub(super) fn new(
        files: Arc<dyn Files>,
        path: PathBuf,
        file: File,
        len: Option<u64>,
        room: Reservation,
        chores: UnboundedSender<Chore>,
    ) -> Self {
        Self {
            files,
            path,
            file: Arc::new(file),
            chores,
            progress: Mutex::new(Progress {
                room,
                len,
                written: 0,
                allocated: 0,
                dirty: 0,
            }),
            write_back: Arc::default(),
            failed: AtomicBool::new(false),
            committed: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length so far. Blocks.
    pub(super) fn len(&self) -> io::Result<u64> {
        let stat = self.files.stat_file(&self.file);
        Ok(stat.map_err(|error| at("look at", &self.path, &error))?.len)
    }

    /// Makes what was written durable. Blocks. A failure is final: the kernel reports lost pages once and then calls
    /// them clean.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other(format!(
                "cannot trust {}: an earlier sync of it failed, check the disk",
                self.path.display()
            )));
        }
        self.files.sync_data(&self.file).map_err(|error| {
            self.failed.store(true, Ordering::SeqCst);
            at("sync", &self.path, &error)
        })
    }

    /// Notes that the file has left `partial/` for good: no more writes, no more claim on room.
    pub(super) fn set_committed(&self) {
        self.committed.store(true, Ordering::SeqCst);
        self.progress.lock().room.release();
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.committed.load(Ordering::SeqCst) {
            return Err(io::Error::other("the blob is committed and never changes"));
        }
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(count).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "offset beyond any file's end")
        })?;
        if let Some((from, len)) = self.make_room(offset, end)? {
            self.allocate(from, len)?;
        }
        self.files
            .write_at(&self.file, offset, bytes)
            .map_err(|error| at("write to", &self.path, &error))?;
        if self.note_written(count) {
            self.write_back()?;
        }
        Ok(())
    }

    /// Claims room for a write, and says what to set aside in the file system ahead of it.
    fn make_room(&self, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
        let mut progress = self.progress.lock();
        if end > progress.room.held() {
            let step = end.checked_next_multiple_of(ROOM_STEP).unwrap_or(end);
            if progress.room.grow_to(step).is_err() {
                progress.room.grow_to(end)?;
            }
        }
        let Some(len) = progress.len.filter(|&len| len >= LEAST_ALLOCATED) else {
            return Ok(None);
        };
        // Writes far ahead of the rest are left to the file system, so that nothing is set aside for the gap.
        let from = progress.allocated;
        let ahead = from.saturating_add(ROOM_STEP).max(end).min(len);
        if offset > from || end <= from || ahead <= from {
            return Ok(None);
        }
        progress.allocated = ahead;
        progress.room.land(ahead);
        Ok(Some((from, ahead - from)))
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        match self.files.reserve(&self.file, from, len) {
            // The claim alone must do.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other.map_err(|error| at("set space aside for", &self.path, &error)),
        }
    }

    /// Whether a window is full.
    fn note_written(&self, count: u64) -> bool {
        let mut progress = self.progress.lock();
        progress.written = progress.written.saturating_add(count);
        let landed = progress.written.max(progress.allocated);
        progress.room.land(landed);
        progress.dirty = progress.dirty.saturating_add(count);
        let full = progress.dirty >= WRITE_BACK_WINDOW;
        if full {
            progress.dirty = 0;
        }
        full
    }

    /// Has the last window written to disk behind the writer's back, or, while the one before is still on its way,
    /// makes the writer wait.
    fn write_back(&self) -> io::Result<()> {
        if self.write_back.busy.swap(true, Ordering::AcqRel) {
            return self.sync();
        }
        let chore = Chore::WriteBack {
            path: self.path.clone(),
            state: Arc::clone(&self.write_back),
        };
        match self.chores.send(chore) {
            Ok(()) => Ok(()),
            Err(_) => self.sync(),
        }
    }
}

impl WriteBack {
    /// Writes the file at `path` back, through a handle of its own: the kernel tells each handle once of pages that it
    /// lost, and the one told must be the stage's, at commit.
    pub(super) fn run(&self, files: &dyn Files, path: &Path) {
        let done = files.open(path).and_then(|file| files.sync_data(&file));
        self.busy.store(false, Ordering::Release);
        if let Err(error) = done
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "write-back failed; the commit will too");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.committed.load(Ordering::SeqCst) {
            return;
        }
        let chore = Chore::Discard {
            path: std::mem::take(&mut self.path),
            file: Arc::clone(&self.file),
        };
        // Off this thread, which may be an async one: freeing a large file takes a while.
        if let Err(unsent) = self.chores.send(chore)
            && let Chore::Discard { path, .. } = unsent.0
        {
            discard(&*self.files, &path);
        }
    }
}

/// Removes a file that nobody will commit.
pub(super) fn discard(files: &dyn Files, path: &Path) {
    if let Err(error) = files.unlink(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(
            path = %path.display(),
            %error,
            "cannot remove an unfinished file; the next start will try again"
        );
    }
}

/// Smaller blobs have no space set aside: they are written in one go.
const LEAST_ALLOCATED: u64 = 1 << 20;

/// Space is claimed and set aside in steps of this.
const ROOM_STEP: u64 = 16 << 20;

/// So many bytes are written before the disk is made to take them. Without it, gigabytes of dirty pages pile up, and
/// the sync at commit stands in every other commit's way. (`sync_file_range` would do it page by page, but takes
/// `unsafe` code, and promises nothing on some file systems.)
const WRITE_BACK_WINDOW: u64 = 32 << 20;

//! A disk that fails where a test wants it to.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::{BootId, Disk, Entries, Entry, FileId, Files, Space, Stat};

/// The disk, but for what a test says.
pub(crate) struct Sick {
    /// Changes until it takes no more; looking is always possible.
    left: AtomicU64,
    /// A file whose bytes cannot be read.
    unreadable: Mutex<Option<FileId>>,
    /// What it says of its space, whatever goes or comes.
    space: Mutex<Option<Space>>,
    /// A directory that cannot be listed.
    unlisted: Mutex<Option<PathBuf>>,
    /// One that is too large to be listed at once.
    large: Mutex<Option<PathBuf>>,
    /// What cannot be looked at.
    unseen: Mutex<Option<PathBuf>>,
    /// What cannot be removed.
    stuck: Mutex<Option<PathBuf>>,
    syncs: Mutex<Syncs>,
    released: Condvar,
    /// Bytes for which space was set aside, each time.
    reserved: Mutex<Vec<u64>>,
    /// It has no more in one piece.
    most_reserved: AtomicU64,
}

/// How large files are synced.
#[derive(Debug, Default)]
enum Syncs {
    #[default]
    Succeed,
    /// Those of so many bytes wait.
    Wait(u64),
    /// Those of so many bytes fail.
    Fail(u64),
}

impl fmt::Debug for Sick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sick").finish_non_exhaustive()
    }
}

impl Sick {
    /// Nothing is wrong with it yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::killed_after(u64::MAX))
    }

    /// Takes so many changes and then no more, as when the process is killed.
    pub(crate) fn killed_after(changes: u64) -> Self {
        Self {
            left: changes.into(),
            unreadable: Mutex::default(),
            space: Mutex::default(),
            unlisted: Mutex::default(),
            large: Mutex::default(),
            unseen: Mutex::default(),
            stuck: Mutex::default(),
            syncs: Mutex::default(),
            released: Condvar::new(),
            reserved: Mutex::default(),
            most_reserved: u64::MAX.into(),
        }
    }

    /// Has every read of the file at `path` fail, under whatever name; it can still be opened.
    pub(crate) fn cannot_read(&self, path: &Path) {
        *self.unreadable.lock() = Disk.stat(path).ok().map(|stat| stat.id);
    }

    /// Has it say so of its space from now on, whatever goes or comes.
    pub(crate) fn always_has(&self, space: Space) {
        *self.space.lock() = Some(space);
    }

    /// Has every listing of this directory fail.
    pub(crate) fn cannot_list(&self, dir: &Path) {
        *self.unlisted.lock() = Some(dir.to_owned());
    }

    /// Has the listing of this directory fail but for one name after the other.
    pub(crate) fn cannot_list_at_once(&self, dir: &Path) {
        *self.large.lock() = Some(dir.to_owned());
    }

    /// Has every look at this file fail.
    pub(crate) fn cannot_look_at(&self, path: &Path) {
        *self.unseen.lock() = Some(path.to_owned());
    }

    /// Has every removal of this file fail.
    pub(crate) fn cannot_remove(&self, path: &Path) {
        *self.stuck.lock() = Some(path.to_owned());
    }

    /// Has space for no more than so many bytes at once.
    pub(crate) fn reserves_at_most(&self, bytes: u64) {
        self.most_reserved.store(bytes, Ordering::Relaxed);
    }

    /// Bytes for which space was set aside, each time since the last call.
    pub(crate) fn reserved(&self) -> Vec<u64> {
        std::mem::take(&mut self.reserved.lock())
    }

    /// Has every sync of a file of at least so many bytes wait until [`Sick::syncs`] or [`Sick::cannot_sync`].
    pub(crate) fn holds_syncs_of(&self, least: u64) {
        *self.syncs.lock() = Syncs::Wait(least);
    }

    /// Has every sync of a file of at least so many bytes fail.
    pub(crate) fn cannot_sync(&self, least: u64) {
        *self.syncs.lock() = Syncs::Fail(least);
        self.released.notify_all();
    }

    /// Has every sync succeed.
    pub(crate) fn syncs(&self) {
        *self.syncs.lock() = Syncs::Succeed;
        self.released.notify_all();
    }

    fn change(&self) -> io::Result<()> {
        let less = |left: u64| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.map(|_| ()).map_err(|_| io::Error::other("killed"))
    }
}

fn fails_for(ill: &Mutex<Option<PathBuf>>, path: &Path) -> io::Result<()> {
    if ill.lock().as_deref() == Some(path) {
        return Err(rustix::io::Errno::ACCESS.into());
    }
    Ok(())
}

impl Files for Sick {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.change()?;
        Disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        Disk.open(path)
    }

    fn reopen(&self, path: &Path) -> io::Result<File> {
        Disk.reopen(path)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change()?;
        Disk.write_at(file, offset, bytes)
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if *self.unreadable.lock() == Some(Disk.stat_file(file)?.id) {
            return Err(rustix::io::Errno::IO.into());
        }
        Disk.read_at(file, offset, buffer)
    }

    fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        if len > self.most_reserved.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.reserved.lock().push(len);
        Disk.reserve(file, offset, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.change()?;
        let len = Disk.stat_file(file)?.len;
        let mut syncs = self.syncs.lock();
        loop {
            match *syncs {
                Syncs::Wait(least) if len >= least => {
                    // A test that has failed lets nobody go.
                    let waited = self.released.wait_for(&mut syncs, PATIENCE);
                    if waited.timed_out() {
                        return Err(rustix::io::Errno::TIMEDOUT.into());
                    }
                }
                Syncs::Fail(least) if len >= least => return Err(rustix::io::Errno::IO.into()),
                _ => break,
            }
        }
        drop(syncs);
        Disk.sync_data(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change()?;
        Disk.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        Disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        Disk.link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        fails_for(&self.stuck, path)?;
        Disk.unlink(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        Disk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        Disk.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        fails_for(&self.unlisted, dir)?;
        fails_for(&self.large, dir)?;
        Disk.list(dir)
    }

    fn entries(&self, dir: &Path) -> io::Result<Entries> {
        fails_for(&self.unlisted, dir)?;
        Disk.entries(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        fails_for(&self.unseen, path)?;
        Disk.stat(path)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        Disk.stat_file(file)
    }

    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        Disk.set_modified(path, time)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        Disk.try_lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let said = *self.space.lock();
        said.map_or_else(|| Disk.space(path), Ok)
    }

    fn boot_id(&self) -> io::Result<BootId> {
        Disk.boot_id()
    }
}

/// No test holds a sync back for longer.
const PATIENCE: Duration = Duration::from_mins(1);

//! A file layer over real files that forgets: at a power loss, whatever was not synced may be gone.
//!
//! Bytes written since a file's last sync, and names made, moved or removed since their directory's last sync, survive
//! or vanish each on its own, as [`Luck`] has it; a directory that vanishes takes with it what is in it. That is more
//! than any one file system does, and all of what they may do.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use layby::store::{BootId, Disk, Entry, Files, Space, Stat};

mod luck;

pub(crate) use luck::Luck;

use luck::Dice;

/// The layer of one life, from power-on to [`Forgetful::power_loss`].
#[derive(Debug)]
pub(crate) struct Forgetful {
    /// The data directory.
    root: PathBuf,
    /// Where the names that may have to come back are kept; on the same file system.
    attic: PathBuf,
    /// The run of the operating system that this life is in.
    boot: BootId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_off: bool,
    /// Changes until the power goes.
    left: Option<u64>,
    /// Syncs of data so far.
    syncs: u64,
    /// Syncs of data that will fail.
    failing_syncs: u32,
    space: Option<Space>,
    /// Bytes that the disk still takes; `None`: as many as come.
    bytes_left: Option<usize>,
    /// What the disk surely holds under names that were changed since.
    names: BTreeMap<PathBuf, Durable>,
    contents: HashMap<(u64, u64), Content>,
    kept: u64,
    /// Changes so far.
    changes: u64,
}

#[derive(Debug, Clone)]
enum Durable {
    Absent,
    /// A link to it in the attic.
    File(PathBuf),
    Directory,
}

#[derive(Debug, Default)]
struct Content {
    durable_len: u64,
    unsynced: Vec<Write>,
    /// Writes whose sync failed: no later one brings them to disk.
    lost: Vec<Write>,
    /// Handles that were told of the loss; like the kernel, each is told once.
    told: HashSet<RawFd>,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    len: usize,
    /// What was there, as far as the file reached.
    before: Vec<u8>,
}

impl Forgetful {
    /// A layer for the data directory `data` in `dir`, which keeps its own things in `dir` too.
    pub(crate) fn new(dir: &Path) -> Arc<Self> {
        Self::booted(dir, BootId([0; 16]))
    }

    fn booted(dir: &Path, boot: BootId) -> Arc<Self> {
        let attic = dir.join("attic");
        std::fs::create_dir_all(&attic).expect("a scratch directory");
        Arc::new(Self {
            root: dir.join("data"),
            attic,
            boot,
            state: Mutex::default(),
        })
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.clone()
    }

    /// Changes made so far: what [`Forgetful::power_off_after`] counts.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Syncs of data tried so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Lets `changes` more changes happen; every call after them fails.
    pub(crate) fn power_off_after(&self, changes: u64) {
        self.lock().left = Some(changes);
    }

    /// Turns the power on again, with nothing forgotten.
    pub(crate) fn power_on(&self) {
        let mut state = self.lock();
        state.is_off = false;
        state.left = None;
    }

    /// Has the next `count` syncs of data fail, and their bytes lost.
    pub(crate) fn fail_syncs(&self, count: u32) {
        self.lock().failing_syncs = count;
    }

    /// Lets the disk take only so many more bytes; `None`: as many as come.
    pub(crate) fn fill_after(&self, bytes: Option<usize>) {
        self.lock().bytes_left = bytes;
    }

    /// Tells this free space instead of the disk's.
    pub(crate) fn set_space(&self, space: Space) {
        self.lock().space = Some(space);
    }

    /// Turns the power off for good and leaves on disk what `luck` lets survive. Returns the layer of the next life;
    /// whoever still holds this one gets errors.
    pub(crate) fn power_loss(&self, luck: Luck) -> Arc<Self> {
        let mut state = self.lock();
        state.is_off = true;
        let mut dice = Dice::new(luck);
        // Parents come before what is in them.
        for (path, durable) in std::mem::take(&mut state.names) {
            if !dice.name_survives() {
                revert(&path, &durable);
            }
        }
        let mut contents = std::mem::take(&mut state.contents);
        drop(state);
        if luck != Luck::All {
            forget_bytes(&self.root, &mut contents, &mut dice);
        }
        std::fs::remove_dir_all(&self.attic).expect("the attic");
        let boot = match luck {
            Luck::All => self.boot,
            _ => BootId((u128::from_le_bytes(self.boot.0) + 1).to_le_bytes()),
        };
        Self::booted(self.root.parent().expect("a scratch directory"), boot)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn powered(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.is_off { Err(off()) } else { Ok(state) }
    }

    /// The state, for one more change.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.powered()?;
        match &mut state.left {
            Some(0) => {
                state.is_off = true;
                Err(off())
            }
            left => {
                *left = left.map(|left| left - 1);
                state.changes += 1;
                Ok(state)
            }
        }
    }

    /// Notes what is at `path`, before its name changes.
    fn keep(&self, state: &mut State, path: &Path) -> io::Result<()> {
        if state.names.contains_key(path) {
            return Ok(());
        }
        let durable = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Durable::Absent,
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => Durable::Directory,
            Ok(_) => {
                state.kept += 1;
                let link = self.attic.join(state.kept.to_string());
                std::fs::hard_link(path, &link)?;
                Durable::File(link)
            }
        };
        state.names.insert(path.to_owned(), durable);
        Ok(())
    }
}

impl Files for Forgetful {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.change()?;
        let file = Disk.create(path)?;
        state
            .names
            .entry(path.to_owned())
            .or_insert(Durable::Absent);
        state.contents.insert(id(&file)?, Content::default());
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let _state = self.powered()?;
        Disk.open(path)
    }

    fn reopen(&self, path: &Path) -> io::Result<File> {
        let _state = self.powered()?;
        Disk.reopen(path)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.change()?;
        state.take_space(bytes.len())?;
        let before = before(file, offset, bytes.len())?;
        let durable_len = file.metadata()?.len();
        let content = state.contents.entry(id(file)?).or_insert_with(|| Content {
            durable_len,
            ..Content::default()
        });
        content.unsynced.push(Write {
            offset,
            len: bytes.len(),
            before,
        });
        Disk.write_at(file, offset, bytes)
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let _state = self.powered()?;
        Disk.read_at(file, offset, buffer)
    }

    fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.change()?;
        state.take_space(0)?;
        Disk.reserve(file, offset, len)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let mut state = self.change()?;
        state.syncs += 1;
        let fails = state.failing_syncs > 0;
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        let len = file.metadata()?.len();
        let content = state.contents.entry(id(file)?).or_default();
        if fails {
            content.lost.append(&mut content.unsynced);
            content.told.clear();
        }
        if !content.lost.is_empty() && content.told.insert(file.as_raw_fd()) {
            return Err(io::Error::other("the disk failed"));
        }
        content.unsynced.clear();
        content.durable_len = len;
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        Disk.list(dir)?;
        let synced = state
            .names
            .extract_if(.., |path, _| path.parent() == Some(dir));
        for (removed, _) in synced
            .filter(|(_, durable)| matches!(durable, Durable::Directory))
            .collect::<Vec<_>>()
        {
            // What the removed directory held is gone for good; a new one of its name began empty.
            let is_anew = removed.is_dir();
            state
                .names
                .retain(|path, _| is_anew || !path.starts_with(&removed));
            let inside = state.names.iter_mut();
            for (_, durable) in inside.filter(|(path, _)| path.starts_with(&removed)) {
                *durable = Durable::Absent;
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        self.keep(&mut state, from)?;
        self.keep(&mut state, to)?;
        Disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        Disk.link(from, to)?;
        state.names.entry(to.to_owned()).or_insert(Durable::Absent);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        self.keep(&mut state, path)?;
        Disk.unlink(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        Disk.create_dir(path)?;
        state
            .names
            .entry(path.to_owned())
            .or_insert(Durable::Absent);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        Disk.remove_dir(path)?;
        state
            .names
            .entry(path.to_owned())
            .or_insert(Durable::Directory);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let _state = self.powered()?;
        Disk.list(dir)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let _state = self.powered()?;
        Disk.stat(path)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        let _state = self.powered()?;
        Disk.stat_file(file)
    }

    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        let _state = self.powered()?;
        Disk.set_modified(path, time)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        let _state = self.powered()?;
        Disk.try_lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        match self.powered()?.space {
            Some(space) => Ok(space),
            None => Disk.space(path),
        }
    }

    fn boot_id(&self) -> io::Result<BootId> {
        Ok(self.boot)
    }
}

impl State {
    /// Lets `len` bytes be written, if the disk takes them.
    fn take_space(&mut self, len: usize) -> io::Result<()> {
        let Some(left) = &mut self.bytes_left else {
            return Ok(());
        };
        *left = left
            .checked_sub(len.max(1))
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(())
    }
}

/// Puts back what the disk surely held under a name.
fn revert(path: &Path, durable: &Durable) {
    if !path.parent().is_some_and(Path::is_dir) {
        return; // went with its directory
    }
    let is_dir = path.symlink_metadata().map(|metadata| metadata.is_dir());
    let result = match (durable, is_dir) {
        (Durable::Directory, Ok(true)) | (_, Err(_)) => Ok(()),
        (_, Ok(true)) => std::fs::remove_dir_all(path),
        (_, Ok(false)) => std::fs::remove_file(path),
    };
    result.expect("to take a name away");
    match durable {
        Durable::Absent => {}
        Durable::File(link) => std::fs::hard_link(link, path).expect("to put a file back"),
        Durable::Directory => std::fs::create_dir_all(path).expect("to put a directory back"),
    }
}

/// Takes unsynced bytes away from every file under `dir`.
fn forget_bytes(dir: &Path, contents: &mut HashMap<(u64, u64), Content>, dice: &mut Dice) {
    let Ok(mut entries) = Disk.list(dir) else {
        return;
    };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        let path = dir.join(&entry.name);
        if path.is_dir() {
            forget_bytes(&path, contents, dice);
            continue;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("a file");
        let Some(content) = contents.remove(&id(&file).expect("an id")) else {
            continue;
        };
        let shortened = !content.unsynced.is_empty() && dice.is_shortened();
        let writes = content.lost.iter().map(|write| (write, false));
        let unsynced = content.unsynced.iter().map(|write| (write, true));
        // The latest first, so that the earliest state is the last one put back.
        let writes: Vec<_> = writes.chain(unsynced).collect();
        for (write, may_survive) in writes.into_iter().rev() {
            if !(may_survive && !shortened && dice.bytes_survive()) {
                let mut bytes = write.before.clone();
                bytes.resize(write.len, 0);
                file.write_all_at(&bytes, write.offset).expect("to forget");
            }
        }
        if shortened {
            file.set_len(content.durable_len).expect("to shorten");
        }
    }
}

fn before(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; len.min(usize::try_from(there).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn id(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

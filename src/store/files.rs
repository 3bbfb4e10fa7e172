//! The file layer: every change that the store makes to the disk goes through [`Files`], so that a test can take the
//! power away at any of them.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, FileType, TryLockError};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{
    Advice, AtFlags, CWD, FallocateFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::{Errno, ReadWriteFlags};

use super::partial::BootId;

/// What the store asks of a file system. All calls block.
///
/// Files are handed out as [`File`], so that a sender can read them at positions or have the kernel send them; whoever
/// changes one does it through this trait.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// Creates a regular file that is not there yet, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// The same, for what nobody but its owner may read.
    fn create_private(&self, path: &Path) -> io::Result<File> {
        let file = self.create(path)?;
        rustix::fs::fchmod(&file, PRIVATE_FILE_MODE)?;
        Ok(file)
    }

    /// Opens for reading, without following a symbolic link in the last component, without waiting for a fifo's other
    /// end, and without changing the access time where that is permitted.
    fn open(&self, path: &Path) -> io::Result<File>;

    /// Opens for reading and writing, otherwise like [`Files::open`].
    fn reopen(&self, path: &Path) -> io::Result<File>;

    /// Writes all `bytes` at `offset`.
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes all of `parts`, one behind the other, from `offset` on.
    fn write_parts_at(&self, file: &File, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = offset;
        for part in parts {
            self.write_at(file, at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Fills `buffer` from `offset`; [`io::ErrorKind::UnexpectedEof`] where the file is too short.
    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Opens for [`Files::read_once_at`], otherwise like [`Files::open`].
    fn open_once(&self, path: &Path) -> io::Result<File> {
        self.open(path)
    }

    /// Like [`Files::read_at`], of what nobody is expected to read again soon: what was not in memory before is not
    /// afterwards either, where the system allows that.
    fn read_once_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_at(file, offset, buffer)
    }

    /// Takes space for `len` bytes at `offset` without changing the file's length; [`io::ErrorKind::Unsupported`]
    /// where the file system cannot.
    fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable.
    fn sync_data(&self, file: &File) -> io::Result<()>;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Moves a file, replacing what is at `to` in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, where there is nothing yet. Not every file system can.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory; its parent must be there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// The same one after the other, for a directory that may be too large to be in memory whole. What comes or goes
    /// meanwhile may be among them or not.
    fn entries(&self, dir: &Path) -> io::Result<Entries> {
        Ok(Box::new(self.list(dir)?.into_iter().map(Ok)))
    }

    /// What is at `path`; a symbolic link is not followed.
    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// What an open file is.
    fn stat_file(&self, file: &File) -> io::Result<Stat>;

    /// Sets the modification time of the file at `path`.
    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()>;

    /// Opens or creates the file at `path` and locks it for as long as the answer is held; `None` while someone else
    /// holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<File>>;

    /// The space of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// The run of the operating system: written bytes that no sync has made durable are there as long as it lasts.
    fn boot_id(&self) -> io::Result<BootId>;
}

/// Names in a directory, as they are read from it.
pub type Entries = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: OsString,
    /// What it names.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a fifo, a socket, a device.
    Other,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes that it takes on disk: fewer than its length where it has holes, more where space is set aside.
    pub allocated: u64,
    /// Its modification time.
    pub modified: SystemTime,
    /// Which file it is.
    pub id: FileId,
}

/// Tells a file from every other that is there at the same time, whatever their names. A file that is held open keeps
/// its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// Space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this user may still take.
    pub available: u64,
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(path, flags, FILE_MODE)?))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        open_with(path, OFlags::RDONLY)
    }

    fn reopen(&self, path: &Path) -> io::Result<File> {
        open_with(path, OFlags::RDWR)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn write_parts_at(&self, file: &File, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let (mut left, mut at) = (&mut parts[..], offset);
        // Those without bytes in front, which would look like a disk that takes none.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut left, written);
                    at += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    fn open_once(&self, path: &Path) -> io::Result<File> {
        let file = self.open(path)?;
        // Nothing is read ahead, so that what is in memory was there for others.
        if let Err(error) = rustix::fs::fadvise(&file, 0, None, Advice::Random) {
            tracing::debug!(path = %path.display(), %error, "no advice is taken");
        }
        Ok(file)
    }

    fn read_once_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut in_memory = [IoSliceMut::new(buffer)];
        let had = rustix::io::preadv2(file, &mut in_memory, offset, ReadWriteFlags::NOWAIT);
        if had.is_ok_and(|len| len == buffer.len()) {
            return Ok(());
        }
        file.read_exact_at(buffer, offset)?;
        if let Some(len) = NonZeroU64::new(buffer.len() as u64) {
            // Where it is not allowed, the system's own order decides what stays in memory.
            let _ = rustix::fs::fadvise(file, offset, Some(len), Advice::DontNeed);
        }
        Ok(())
    }

    fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        File::from(rustix::fs::open(dir, flags, Mode::empty())?).sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(DIR_MODE).create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.entries(dir)?.collect()
    }

    fn entries(&self, dir: &Path) -> io::Result<Entries> {
        let entries = std::fs::read_dir(dir)?.map(|entry| {
            let entry = entry?;
            Ok(Entry {
                kind: entry.file_type()?.into(),
                name: entry.file_name(),
            })
        });
        Ok(Box::new(entries))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        std::fs::symlink_metadata(path)?.try_into()
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        file.metadata()?.try_into()
    }

    fn set_modified(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: since.subsec_nanos().into(),
            },
        };
        Ok(rustix::fs::utimensat(
            CWD,
            path,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, FILE_MODE)?);
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn boot_id(&self) -> io::Result<BootId> {
        let text = std::fs::read_to_string(BOOT_ID)?;
        let digits: String = text.trim().split('-').collect();
        const_hex::decode_to_array(digits)
            .map(BootId)
            .map_err(io::Error::other)
    }
}

fn open_with(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        // Only a file's owner may leave its access time alone.
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        other => other,
    }?;
    Ok(File::from(file))
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        if kind.is_file() {
            Self::File
        } else if kind.is_dir() {
            Self::Directory
        } else {
            Self::Other
        }
    }
}

impl TryFrom<std::fs::Metadata> for Stat {
    type Error = io::Error;

    fn try_from(metadata: std::fs::Metadata) -> io::Result<Self> {
        Ok(Self {
            kind: metadata.file_type().into(),
            len: metadata.len(),
            allocated: metadata.blocks().saturating_mul(STAT_BLOCK),
            modified: metadata.modified()?,
            id: FileId {
                device: metadata.dev(),
                inode: metadata.ino(),
            },
        })
    }
}

/// Opens the regular file at `path`. `None` where there is none; what is there but is not a file of ours, or cannot be
/// read, is logged and counts as none, so that it is fetched anew and replaced. Fails where the fault is not the
/// file's: too many open files, no memory.
pub(super) fn open_regular(files: &dyn Files, path: &Path) -> io::Result<Option<(File, Stat)>> {
    regular(files, path, files.open(path))
}

/// What was `opened` at `path`, if it is what [`open_regular`] finds.
pub(super) fn regular(
    files: &dyn Files,
    path: &Path,
    opened: io::Result<File>,
) -> io::Result<Option<(File, Stat)>> {
    let opened = opened.and_then(|file| files.stat_file(&file).map(|stat| (file, stat)));
    match opened {
        Ok((file, stat)) if stat.kind == Kind::File => Ok(Some((file, stat))),
        Ok(_) => {
            tracing::warn!(
                path = %path.display(),
                "not a regular file; it is passed over, remove it"
            );
            Ok(None)
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) if is_faulty(&error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "file cannot be used; it is fetched anew, check its owner, its mode and the disk"
            );
            Ok(None)
        }
        Err(error) => Err(at("open", path, &error)),
    }
}

/// Whether an error says that there is nothing under this name.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether an error is about this file alone: a link or a socket, a mode, a bad sector, a name too long for the disk.
fn is_faulty(error: &io::Error) -> bool {
    let faults = [
        Errno::LOOP,
        Errno::NXIO,
        Errno::ACCESS,
        Errno::PERM,
        Errno::IO,
        Errno::NAMETOOLONG,
    ];
    Errno::from_io_error(error).is_some_and(|errno| faults.contains(&errno))
}

/// `error` with what was being done to which path.
pub(super) fn at(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {action} {}: {error}", path.display()),
    )
}

/// Whether an error says that the disk takes no more bytes, all of it or for this user.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The unit of a file's block count, whatever the file system's own is (POSIX, `stat`).
const STAT_BLOCK: u64 = 512;

/// Where Linux tells its boot id.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Content may be private: not for everyone on the machine.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const PRIVATE_FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIR_MODE: u32 = 0o750;

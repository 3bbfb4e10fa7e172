//! Whether what is stored still is what its name says, and moving aside what is not.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::oci::{Digest, Hasher};

use super::change::Change;
use super::damaged::Aside;
use super::files::{Entry, FileId, Files, Kind, Stat, at, is_absent};
use super::usage::Reading;
use super::walk::PassedOver;
use super::{Store, layout};

/// What a stored blob turned out to be.
#[derive(Debug)]
pub enum Soundness {
    /// It matches its digest.
    Sound,
    /// There is none.
    Missing,
    /// It has no bytes, and its digest is not that of nothing.
    Emptied(Faulty),
    /// It has `len` bytes that do not match its digest.
    Damaged {
        /// Its length.
        len: u64,
        /// Its file.
        file: Faulty,
    },
    /// Its file cannot be opened, so that it counts as missing when it is asked for.
    Closed(io::Error),
    /// Its file can be opened but not read.
    Unreadable(io::Error, Faulty),
}

/// The file of a blob that is to be moved aside. Held open, so that no other can be taken for it.
///
/// Its modification time tells nothing: it is the blob's last use.
#[derive(Debug)]
pub struct Faulty {
    id: FileId,
    len: u64,
    #[expect(dead_code, reason = "held, not used")]
    file: File,
}

/// What became of a blob that was found faulty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAside {
    /// It is there now.
    Moved(PathBuf),
    /// It is larger than all that is kept aside, and was removed.
    Removed,
    /// It was removed or committed anew since.
    Gone,
}

/// A comparison as it begins.
#[derive(Debug)]
pub enum Begun {
    /// It is under way.
    Check(Box<BlobCheck>),
    /// There is nothing to be read.
    Ended(Soundness),
}

/// A comparison of a blob with its digest, a piece at a time, so that whoever makes it can rest in between.
#[derive(Debug)]
pub struct BlobCheck {
    files: Arc<dyn Files>,
    digest: Digest,
    path: PathBuf,
    file: File,
    stat: Stat,
    hasher: Hasher,
    buffer: Vec<u8>,
    offset: u64,
    /// It is not evicted meanwhile.
    _reading: Option<Reading>,
}

impl BlobCheck {
    /// Bytes that have been read.
    pub fn read(&self) -> u64 {
        self.offset
    }

    /// Reads a piece, 256 KiB at most; what the blob turned out to be, once that is known, after which there is nothing to
    /// be read. Blocks shortly. Fails where the fault is not the blob's.
    pub fn step(&mut self) -> io::Result<Option<Soundness>> {
        let left = self.stat.len.saturating_sub(self.offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        self.buffer.resize(len, 0);
        match self
            .files
            .read_once_at(&self.file, self.offset, &mut self.buffer)
        {
            Ok(()) => self.hasher.update(&self.buffer),
            // It is being made shorter at this moment, by nobody of ours.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let len = self.offset;
                let file = self.faulty()?;
                return Ok(Some(Soundness::Damaged { len, file }));
            }
            Err(error) if is_ours(&error) => return Err(at("read", &self.path, &error)),
            Err(error) => return Ok(Some(Soundness::Unreadable(error, self.faulty()?))),
        }
        self.offset = self.offset.saturating_add(len as u64);
        if self.offset < self.stat.len {
            return Ok(None);
        }
        if self.hasher.clone().finish() == self.digest {
            return Ok(Some(Soundness::Sound));
        }
        let file = self.faulty()?;
        Ok(Some(match self.stat.len {
            0 => Soundness::Emptied(file),
            len => Soundness::Damaged { len, file },
        }))
    }

    fn faulty(&self) -> io::Result<Faulty> {
        let file = self.file.try_clone();
        Ok(Faulty {
            id: self.stat.id,
            len: self.stat.len,
            file: file.map_err(|error| at("hold", &self.path, &error))?,
        })
    }
}

/// A directory of blobs.
#[derive(Debug, Clone)]
pub struct BlobShard {
    algorithm: &'static str,
    name: OsString,
    path: PathBuf,
}

/// What is found where blobs are.
#[derive(Debug)]
pub enum ShardEntry {
    /// A file with the name of a blob.
    Blob(Digest),
    /// Anything else.
    Foreign(PathBuf),
}

impl BlobShard {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all its blobs come before `digest`.
    pub fn is_before(&self, digest: &Digest) -> bool {
        let name = self.name.as_encoded_bytes();
        let of_digest = digest.encoded().as_bytes().get(..2).unwrap_or_default();
        (self.algorithm, name) < (digest.algorithm_name(), of_digest)
    }
}

impl Store {
    /// The directories that blobs are in, and what else lies beside them or cannot be listed. Blocks shortly.
    pub fn blob_shards(&self) -> io::Result<(Vec<BlobShard>, Vec<PassedOver>)> {
        let (mut shards, mut passed_over) = (Vec::new(), Vec::new());
        let root = self.layout.blobs_dir();
        for entry in self.sorted(&root)? {
            let known = layout::ALGORITHMS.iter().find(|name| entry.name == **name);
            let dir = root.join(&entry.name);
            let Some(algorithm) = known.filter(|_| entry.kind == Kind::Directory) else {
                passed_over.push(PassedOver::Foreign(dir));
                continue;
            };
            let listed = match self.sorted(&dir) {
                Ok(listed) => listed,
                Err(error) => {
                    passed_over.push(PassedOver::Unreadable(dir, error));
                    continue;
                }
            };
            for shard in listed {
                let path = dir.join(&shard.name);
                if is_shard(&shard) {
                    shards.push(BlobShard {
                        algorithm,
                        name: shard.name,
                        path,
                    });
                } else {
                    passed_over.push(PassedOver::Foreign(path));
                }
            }
        }
        Ok((shards, passed_over))
    }

    /// What is in a directory of blobs, in order. Blocks shortly.
    pub fn shard_entries(&self, shard: &BlobShard) -> io::Result<Vec<ShardEntry>> {
        let entries = self.sorted(&shard.path)?;
        let of = |entry: Entry| {
            let digest = layout::blob_digest(shard.algorithm, &shard.name, &entry.name);
            match digest.filter(|_| entry.kind == Kind::File) {
                Some(digest) => ShardEntry::Blob(digest),
                None => ShardEntry::Foreign(shard.path.join(&entry.name)),
            }
        };
        Ok(entries.into_iter().map(of).collect())
    }

    /// Begins to compare a blob with its digest. Blocks shortly. Fails where the fault is not the blob's.
    pub fn begin_check(&self, digest: &Digest) -> io::Result<Begun> {
        let (Some(path), Some(hasher)) =
            (self.layout.blob(digest), Hasher::new(digest.algorithm()))
        else {
            return Ok(Begun::Ended(Soundness::Missing));
        };
        // Before it is opened, so that it cannot lose its name unnoticed in between. No use of it.
        let reading = self.usage.hold(digest);
        let file = match self.files.open_once(&path) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(Begun::Ended(Soundness::Missing)),
            Err(error) if is_ours(&error) => return Err(at("open", &path, &error)),
            Err(error) => return Ok(Begun::Ended(Soundness::Closed(error))),
        };
        let stat = self
            .files
            .stat_file(&file)
            .map_err(|error| at("look at", &path, &error))?;
        Ok(Begun::Check(Box::new(BlobCheck {
            files: Arc::clone(&self.files),
            digest: digest.clone(),
            path,
            file,
            stat,
            hasher,
            buffer: Vec::new(),
            offset: 0,
            _reading: reading,
        })))
    }

    /// Reads a blob and compares it with its digest. `go_on` hears of the bytes read and may call the check off: `None`.
    /// Blocks for as long as the blob is large. Fails where the fault is not the blob's.
    pub fn check_blob(
        &self,
        digest: &Digest,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Option<Soundness>> {
        let mut check = match self.begin_check(digest)? {
            Begun::Check(check) => check,
            Begun::Ended(soundness) => return Ok(Some(soundness)),
        };
        loop {
            let before = check.offset;
            if let Some(soundness) = check.step()? {
                go_on(check.offset - before);
                return Ok(Some(soundness));
            }
            if !go_on(check.offset - before) {
                return Ok(None);
            }
        }
    }

    /// Moves the blob `digest` to `damaged/`, so that it is fetched anew at its next use, in place of what was moved there
    /// before of the same name; what was moved there longest ago goes where there is too much. Those who hold the blob open
    /// keep it. Durable when it returns.
    pub async fn set_aside(&self, digest: &Digest, faulty: &Faulty) -> io::Result<SetAside> {
        let Some(target) = self.layout.blob(digest) else {
            return Ok(SetAside::Gone);
        };
        let path = self.layout.damaged(digest);
        let is_kept = faulty.len <= self.most_aside;
        let aside = is_kept.then(|| Aside {
            path: path.clone(),
            most: self.most_aside,
        });
        let change = Change::MoveAside {
            digest: digest.clone(),
            target,
            seen: faulty.id,
            aside,
        };
        Ok(match self.committer.make(change).await? {
            true if is_kept => SetAside::Moved(path),
            true => SetAside::Removed,
            false => SetAside::Gone,
        })
    }
}

/// Two digits of a digest.
fn is_shard(entry: &Entry) -> bool {
    let name = entry.name.as_encoded_bytes();
    entry.kind == Kind::Directory
        && name.len() == 2
        && name.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether an error is about this process and not about the file.
fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

/// Read at once: little enough to be in nobody's way.
const PIECE: usize = 256 * 1024;

//! Whether what is stored still is what its name says, and moving aside what is not.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci::{Digest, Hasher};

use super::files::{Entry, Kind, at, is_absent};
use super::{Store, layout};

/// What a stored blob turned out to be.
#[derive(Debug)]
pub enum Soundness {
    /// It matches its digest.
    Sound,
    /// There is none.
    Missing,
    /// It has no bytes, and its digest is not that of nothing.
    Emptied,
    /// It has `len` bytes that do not match its digest.
    Damaged {
        /// Its length.
        len: u64,
    },
    /// Its file cannot be opened or read.
    Unreadable(io::Error),
    /// The check was called off.
    Unknown,
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
}

impl Store {
    /// The directories that blobs are in, and what else lies beside them. Blocks shortly.
    pub fn blob_shards(&self) -> io::Result<(Vec<BlobShard>, Vec<PathBuf>)> {
        let (mut shards, mut foreign) = (Vec::new(), Vec::new());
        let root = self.layout.blobs_dir();
        for entry in self.sorted(&root)? {
            let known = layout::ALGORITHMS.iter().find(|name| entry.name == **name);
            let dir = root.join(&entry.name);
            let Some(algorithm) = known.filter(|_| entry.kind == Kind::Directory) else {
                foreign.push(dir);
                continue;
            };
            for shard in self.sorted(&dir)? {
                let path = dir.join(&shard.name);
                if is_shard(&shard) {
                    shards.push(BlobShard {
                        algorithm,
                        name: shard.name,
                        path,
                    });
                } else {
                    foreign.push(path);
                }
            }
        }
        Ok((shards, foreign))
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

    /// Reads a blob and compares it with its digest. `go_on` hears of the bytes read and may call the check off.
    /// Blocks for as long as the blob is large. Fails where the fault is not the blob's.
    pub fn check_blob(
        &self,
        digest: &Digest,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Soundness> {
        let (Some(path), Some(mut hasher)) =
            (self.layout.blob(digest), Hasher::new(digest.algorithm()))
        else {
            return Ok(Soundness::Missing);
        };
        let opened = self.files.open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(Soundness::Missing),
            Err(error) if is_ours(&error) => return Err(at("open", &path, &error)),
            Err(error) => return Ok(Soundness::Unreadable(error)),
        };
        let stat = self
            .files
            .stat_file(&file)
            .map_err(|error| at("look at", &path, &error))?;
        let mut buffer = vec![0; BUFFER];
        let mut offset = 0;
        while offset < stat.len {
            let left = usize::try_from(stat.len - offset).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(BUFFER)];
            match self.files.read_at(&file, offset, piece) {
                Ok(()) => hasher.update(piece),
                // It is being made shorter at this moment, by nobody of ours.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Soundness::Damaged { len: offset });
                }
                Err(error) => return Ok(Soundness::Unreadable(error)),
            }
            let read = piece.len() as u64;
            offset = offset.saturating_add(read);
            if !go_on(read) {
                return Ok(Soundness::Unknown);
            }
        }
        Ok(match (hasher.finish() == *digest, stat.len) {
            (true, _) => Soundness::Sound,
            (false, 0) => Soundness::Emptied,
            (false, len) => Soundness::Damaged { len },
        })
    }

    /// Moves a blob to `damaged/`, so that it is fetched anew at its next use; where to. `None` where there is none any
    /// more. Those who hold it open keep it. Blocks shortly.
    pub fn set_aside(&self, digest: &Digest) -> io::Result<Option<PathBuf>> {
        let Some(path) = self.layout.blob(digest) else {
            return Ok(None);
        };
        let dir = self.layout.damaged_dir();
        match self.files.create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("create", &dir, &error));
            }
            _ => {}
        }
        let target = self.free_name(digest);
        match self.files.rename(&path, &target) {
            Ok(()) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(at("move aside", &path, &error)),
        }
        self.usage.remove(digest);
        let changed = [path.parent(), Some(&*dir), Some(self.layout.root())];
        for dir in changed.into_iter().flatten() {
            self.files
                .sync_dir(dir)
                .map_err(|error| at("sync", dir, &error))?;
        }
        Ok(Some(target))
    }

    /// Whatever was moved aside before is kept for whoever looks into it.
    fn free_name(&self, digest: &Digest) -> PathBuf {
        for attempt in 0..MOST_ASIDE {
            let path = self.layout.damaged(digest, attempt);
            if self.files.stat(&path).is_err_and(|error| is_absent(&error)) {
                return path;
            }
        }
        // The disk that damaged it so often is the message; the last one is replaced.
        self.layout.damaged(digest, MOST_ASIDE)
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

/// Read at once.
const BUFFER: usize = 1024 * 1024;

/// Copies of one damaged blob that are kept.
const MOST_ASIDE: u32 = 16;

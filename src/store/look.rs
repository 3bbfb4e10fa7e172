//! Looking at what is stored without using it: last uses stay as they are.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crate::oci::Digest;

use super::files::{Kind, at, is_absent, open_regular};
use super::usage::Reading;
use super::{RefKey, Store, StoredBlob};

/// What is known of a stored blob without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLook {
    /// Its length in bytes.
    pub len: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// Keeps a blob from being evicted as long as it is held. Whoever removes it on purpose is not kept from that.
#[derive(Debug)]
pub struct BlobHold {
    _reading: Reading,
}

impl Store {
    /// How many blobs were committed in this life. Counted before [`Store::commit`] returns.
    pub fn commits(&self) -> u64 {
        self.usage.commits()
    }

    /// Whether memory knows that a blob is not there. Never blocks.
    pub fn lacks_blob(&self, digest: &Digest) -> bool {
        self.usage.lacks(digest)
    }

    /// Keeps a blob from being evicted. Whether it is there is to be looked at afterwards. Never blocks.
    pub fn hold_blob(&self, digest: &Digest) -> Option<BlobHold> {
        let reading = self.usage.hold(digest);
        reading.map(|reading| BlobHold { _reading: reading })
    }

    /// The committed blob, open, as [`Store::open_blob`] gives it, but without noting a use. Blocks shortly.
    pub fn peek_open(&self, digest: &Digest) -> io::Result<Option<StoredBlob>> {
        let Some(path) = self.layout.blob(digest) else {
            return Ok(None);
        };
        let reading = self.usage.hold(digest);
        let opened = open_regular(&*self.files, &path)?;
        let whole = opened.filter(|(_, stat)| !self.is_cut(digest, stat.len));
        Ok(whole.map(|(file, stat)| StoredBlob {
            file: Arc::new(file),
            len: stat.len,
            reading: reading.map(Arc::new),
        }))
    }

    /// Size and last use of a committed blob. Blocks shortly.
    pub fn look_at_blob(&self, digest: &Digest) -> io::Result<Option<BlobLook>> {
        let Some(path) = self.layout.blob(digest) else {
            return Ok(None);
        };
        match self.files.stat(&path) {
            Ok(stat) if stat.kind == Kind::File => {
                let in_memory = self.usage.used(digest);
                Ok(Some(BlobLook {
                    len: stat.len,
                    used: in_memory.map_or(stat.modified, |used| used.max(stat.modified)),
                }))
            }
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(at("look at", &path, &error)),
        }
    }

    /// The length of a committed blob, which is not opened for it; `None` as well for one that has lost its end. Blocks
    /// shortly.
    pub fn blob_len(&self, digest: &Digest) -> io::Result<Option<u64>> {
        let len = self.look_at_blob(digest)?.map(|look| look.len);
        Ok(len.filter(|len| !self.is_cut(digest, *len)))
    }

    /// Whether a blob that has `len` bytes has lost its end.
    pub(super) fn is_cut(&self, digest: &Digest, len: u64) -> bool {
        let counted = self.counted_len(digest);
        counted.is_some_and(|counted| len < counted)
            || (len == 0 && Digest::of(digest.algorithm(), b"").as_ref() != Some(digest))
    }

    /// The bytes of a committed blob; `None` where there is none, or a longer one. Blocks shortly.
    pub fn peek_blob(&self, digest: &Digest, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(path) = self.layout.blob(digest) else {
            return Ok(None);
        };
        let Some((file, stat)) = open_regular(&*self.files, &path)? else {
            return Ok(None);
        };
        let len = match usize::try_from(stat.len) {
            Ok(len) if stat.len <= most => len,
            _ => return Ok(None),
        };
        let mut bytes = vec![0; len];
        match self.files.read_at(&file, 0, &mut bytes) {
            Ok(()) => Ok(Some(bytes)),
            // It became shorter meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(at("read", &path, &error)),
        }
    }

    /// The length of a blob when it was committed or counted; without looking at the disk.
    pub fn counted_len(&self, digest: &Digest) -> Option<u64> {
        self.usage.len_of(digest)
    }

    /// Whether there is such a record. Blocks shortly.
    pub fn has_ref(&self, key: &RefKey) -> io::Result<bool> {
        let path = self.layout.record(key);
        match self.files.stat(&path) {
            Ok(stat) => Ok(stat.kind == Kind::File),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(at("look at", &path, &error)),
        }
    }
}

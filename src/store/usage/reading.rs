//! What is being read: it is not evicted, and when it loses its name all the same, its bytes count until the last reader
//! has closed it.

use std::collections::HashMap;
use std::sync::Arc;

use super::Usage;

/// Held by a reader of a blob.
#[derive(Debug)]
pub(in crate::store) struct Reading {
    usage: Arc<Usage>,
    start: [u8; 32],
    file: FileNumber,
}

/// Tells the files of one digest apart that follow upon each other.
type FileNumber = u64;

/// All that is being read.
#[derive(Debug, Default)]
pub(super) struct Readers {
    open: HashMap<[u8; 32], Open>,
    /// Files without a name.
    orphans: HashMap<FileNumber, Orphan>,
    orphaned: u64,
    last: FileNumber,
}

#[derive(Debug)]
struct Open {
    readers: u32,
    file: FileNumber,
}

#[derive(Debug)]
struct Orphan {
    readers: u32,
    len: u64,
}

impl Readers {
    /// Notes a reader; the file that it reads.
    pub(super) fn begin(&mut self, start: [u8; 32]) -> FileNumber {
        let open = self.open.entry(start).or_insert_with(|| {
            self.last += 1;
            Open {
                readers: 0,
                file: self.last,
            }
        });
        open.readers += 1;
        open.file
    }

    /// Notes a reader of a file that has lost its name already.
    pub(super) fn begin_orphan(&mut self, len: u64) -> FileNumber {
        self.last += 1;
        self.orphaned = self.orphaned.saturating_add(len);
        self.orphans.insert(self.last, Orphan { readers: 1, len });
        self.last
    }

    fn end(&mut self, start: &[u8; 32], file: FileNumber) {
        if let Some(orphan) = self.orphans.get_mut(&file) {
            orphan.readers -= 1;
            if orphan.readers == 0 {
                self.orphaned = self.orphaned.saturating_sub(orphan.len);
                self.orphans.remove(&file);
            }
        } else if let Some(open) = self.open.get_mut(start)
            && open.file == file
        {
            open.readers -= 1;
            if open.readers == 0 {
                self.open.remove(start);
            }
        }
    }

    /// Notes that a file of `len` bytes has lost its name.
    pub(super) fn removed(&mut self, start: &[u8; 32], len: u64) {
        if let Some(Open { readers, file }) = self.open.remove(start) {
            self.orphaned = self.orphaned.saturating_add(len);
            self.orphans.insert(file, Orphan { readers, len });
        }
    }

    /// Whether the blob is being read.
    pub(super) fn has(&self, start: &[u8; 32]) -> bool {
        self.open.contains_key(start)
    }

    /// Bytes of files without a name.
    pub(super) fn orphaned(&self) -> u64 {
        self.orphaned
    }
}

impl Reading {
    pub(super) fn new(usage: Arc<Usage>, start: [u8; 32], file: FileNumber) -> Self {
        Self { usage, start, file }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.usage.state.lock();
        state.readers.end(&self.start, self.file);
    }
}

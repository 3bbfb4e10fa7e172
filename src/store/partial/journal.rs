//! The log of a partial, as a file that grows.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::Blocks;
use super::log::{Block, HEADER_LEN, LogHeader, RECORD_LEN};
use crate::store::files::{Files, at};

/// Notes what was written to a partial.
///
/// Nobody's write fails because of it: what it cannot note, a later fetch asks for again.
#[derive(Debug)]
pub(super) struct Journal {
    files: Arc<dyn Files>,
    path: PathBuf,
    header: LogHeader,
    /// Made when there is enough to note: a blob's first bytes do not wait for it, and a small one needs none.
    file: Option<File>,
    /// Where the next record goes; 0 before the header is written.
    end: u64,
    /// It grows no further than this.
    most: u64,
    blocks: Blocks,
    /// Blocks that are done and not in the file yet.
    done: Vec<Block>,
}

impl Journal {
    /// A log that will be at `path`.
    pub(super) fn new(files: Arc<dyn Files>, path: PathBuf, header: LogHeader) -> Self {
        Self {
            files,
            path,
            file: None,
            end: 0,
            most: LEAST_LIMIT.saturating_add(header.len / BYTES_PER_LOG_BYTE),
            header,
            blocks: Blocks::default(),
            done: Vec::new(),
        }
    }

    /// Notes that `parts`, one behind the other from `offset` on, are in the file: the kernel has them, so that a killed
    /// process loses no more than what is in blocks that are not done, or before there is a log.
    pub(super) fn written(&mut self, offset: u64, parts: &[IoSlice<'_>]) {
        let mut at = offset;
        for part in parts {
            self.blocks.add(at, part, &mut self.done);
            at = at.saturating_add(part.len() as u64);
        }
        if self.file.is_some() || self.done.len() >= FIRST_RECORDS {
            self.write_done();
        }
    }

    /// Notes all that was written.
    pub(super) fn flush(&mut self) {
        self.blocks.finish(&mut self.done);
        self.write_done();
    }

    /// Takes over a block from an earlier log.
    pub(super) fn copy(&mut self, block: Block) -> io::Result<()> {
        self.done.push(block);
        if self.done.len() < COPIED_AT_ONCE {
            return Ok(());
        }
        self.append_done()
    }

    /// Ends the copying, and moves the log to `path`, in place of the earlier one.
    pub(super) fn replace(&mut self, path: PathBuf) -> io::Result<()> {
        self.append_done()?;
        if self.file.is_some() {
            self.files
                .rename(&self.path, &path)
                .map_err(|error| at("move a finished file to", &path, &error))?;
        }
        self.path = path;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it names any block.
    pub(super) fn is_empty(&self) -> bool {
        self.end <= u64::try_from(HEADER_LEN).unwrap_or(u64::MAX)
    }

    fn write_done(&mut self) {
        if let Err(error) = self.append_done() {
            // It will not be tried again for these blocks; the next ones may fit.
            tracing::debug!(%error, "part of an unfinished blob could not be noted");
        }
    }

    fn append_done(&mut self) -> io::Result<()> {
        if self.done.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.done.len() * RECORD_LEN);
        if self.end == 0 {
            bytes.extend_from_slice(&self.header.encode());
        }
        for block in self.done.drain(..) {
            block.encode_into(&mut bytes);
        }
        self.append(&bytes)
    }

    /// Writes whole records. Where that fails, the next ones take their place.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self
            .end
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > self.most {
            return Err(io::Error::other("the log is as long as it may be"));
        }
        let file = if let Some(file) = &self.file {
            file
        } else {
            let made = self.files.create(&self.path);
            let made = made.map_err(|error| at("create", &self.path, &error))?;
            self.file.insert(made)
        };
        self.files
            .write_at(file, self.end, bytes)
            .map_err(|error| at("write to", &self.path, &error))?;
        self.end = end;
        Ok(())
    }
}

/// So many blocks are noted at once at first: of fewer, it is cheaper to fetch them again. With those that grow, it is no more
/// than a MiB that is not noted.
const FIRST_RECORDS: usize = 2;

/// A log may be as long as this …
const LEAST_LIMIT: u64 = 1 << 20;

/// … and a byte more for so many bytes of the blob. Blocks of a natural size take a hundredth of it; the bound is for
/// who writes byte by byte.
const BYTES_PER_LOG_BYTE: u64 = 64;

/// Records copied in one write.
const COPIED_AT_ONCE: usize = 2048;

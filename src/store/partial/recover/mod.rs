//! Reads back what an earlier fetch has left: which of its bytes are good, and a log to go on with.
//!
//! Under the boot id of the log, what it says was written is in the file: a killed process takes no page with it. Under
//! another one, pages may be missing that had not reached the disk, and read as zeros: each block is read and compared
//! with its checksum. The blocks that are good go into a new log under this boot id: having come from the disk, they
//! will be there as long as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::journal::Journal;
use super::log::{Block, BootId, HEADER_LEN, LogHeader, MAX_BLOCK, RECORD_LEN, checksum};
use crate::store::files::{Files, open_regular};

/// What an earlier fetch has left.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Length of the blob.
    pub(super) len: u64,
    /// The bytes that are good: sorted, disjoint, never empty.
    pub(super) present: Vec<Range<u64>>,
    /// Where further blocks are noted; `None` where it could not be made, and the old log stays.
    pub(super) journal: Option<Journal>,
}

/// Reads the log at `log` and checks it against `data`, its file. `None` where it names no good block. The new log is
/// made at `scratch` and moved to `log`. Blocks, after a reboot for as long as it takes to read the file.
pub(super) fn recover(
    files: &Arc<dyn Files>,
    data: &File,
    log: &Path,
    scratch: &Path,
    boot: BootId,
) -> io::Result<Option<Recovered>> {
    let Some(mut reader) = LogReader::open(&**files, log)? else {
        return Ok(None);
    };
    let is_trusted = reader.header.boot == boot;
    let data_len = files.stat_file(data)?.len;
    if data_len > reader.header.len {
        return Ok(None);
    }
    let header = LogHeader {
        boot,
        ..reader.header
    };
    let mut journal = Ok(Journal::new(Arc::clone(files), scratch.to_owned(), header));
    let mut present = Present::default();
    let mut buffer = Vec::new();
    while let Some(block) = reader.next_block() {
        let is_good =
            block.end <= data_len && (is_trusted || matches(&**files, data, block, &mut buffer));
        if !is_good {
            continue;
        }
        present.insert(block.start..block.end);
        if let Ok(copy) = &mut journal
            && let Err(error) = copy.copy(block)
        {
            journal = give_up(&**files, copy, error);
        }
    }
    if let Ok(copy) = &mut journal {
        let replaced = if present.0.is_empty() {
            Err(io::Error::other("it has no good block"))
        } else {
            copy.replace(log.to_owned())
        };
        if let Err(error) = replaced {
            journal = give_up(&**files, copy, error);
        }
    }
    if let Err(error) = &journal {
        tracing::debug!(%error, "the log of an unfinished blob stays as it is");
    }
    let present = present.into_ranges();
    Ok((!present.is_empty()).then_some(Recovered {
        len: header.len,
        present,
        journal: journal.ok(),
    }))
}

/// The length of the blob whose log this is; `None` where the log is none, or names no block.
pub(in crate::store) fn logged_len(files: &dyn Files, log: &Path) -> io::Result<Option<u64>> {
    let Some(mut reader) = LogReader::open(files, log)? else {
        return Ok(None);
    };
    Ok(reader.next_block().map(|_| reader.header.len))
}

fn give_up(files: &dyn Files, journal: &Journal, error: io::Error) -> io::Result<Journal> {
    // Where that fails, the next start removes it.
    let _ = files.unlink(journal.path());
    Err(error)
}

/// Whether the block's bytes are what was written.
fn matches(files: &dyn Files, data: &File, block: Block, buffer: &mut Vec<u8>) -> bool {
    let len = block.end.saturating_sub(block.start).min(MAX_BLOCK);
    buffer.resize(usize::try_from(len).unwrap_or_default(), 0);
    // What cannot be read is not there.
    files.read_at(data, block.start, buffer).is_ok() && checksum(buffer) == block.checksum
}

/// Reads a log a part at a time, as far as it is one.
struct LogReader<'a> {
    files: &'a dyn Files,
    file: File,
    /// Bytes of the file.
    len: u64,
    /// Where the next part begins.
    at: u64,
    header: LogHeader,
    /// Blocks of the last part, the next one last.
    part: Vec<Block>,
}

impl<'a> LogReader<'a> {
    /// `None` where there is no log, or none of this format. Fails where the fault is not the file's.
    fn open(files: &'a dyn Files, path: &Path) -> io::Result<Option<Self>> {
        let Some((file, stat)) = open_regular(files, path)? else {
            return Ok(None);
        };
        let mut bytes = [0; HEADER_LEN];
        if files.read_at(&file, 0, &mut bytes).is_err() {
            return Ok(None);
        }
        Ok(LogHeader::parse(&bytes).map(|(header, _)| Self {
            files,
            file,
            len: stat.len,
            at: u64::try_from(HEADER_LEN).unwrap_or(u64::MAX),
            header,
            part: Vec::new(),
        }))
    }

    fn next_block(&mut self) -> Option<Block> {
        if self.part.is_empty() {
            self.read_part();
        }
        self.part.pop()
    }

    /// Reads the next part; no more after one that is not whole and true to its end.
    fn read_part(&mut self) {
        let left = self.len.saturating_sub(self.at);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(PART_LEN);
        let mut bytes = vec![0; len];
        if len < RECORD_LEN || self.files.read_at(&self.file, self.at, &mut bytes).is_err() {
            return;
        }
        self.part = self.header.blocks(&bytes).collect();
        self.part.reverse();
        let is_whole = self.part.len() * RECORD_LEN == len;
        let next = self.at.checked_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.at = next.filter(|_| is_whole).unwrap_or(u64::MAX);
    }
}

/// Intervals by their start, none of which touches another.
#[derive(Debug, Default)]
struct Present(BTreeMap<u64, u64>);

impl Present {
    fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        while let Some((&from, &to)) = self.0.range(..=end).next_back()
            && to >= start
        {
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    fn into_ranges(self) -> Vec<Range<u64>> {
        self.0.into_iter().map(|(start, end)| start..end).collect()
    }
}

/// Bytes of a log in memory at once: whole records.
const PART_LEN: usize = 2048 * RECORD_LEN;

#[cfg(test)]
mod tests;

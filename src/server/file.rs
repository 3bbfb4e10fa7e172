//! File bytes for sending: from the page cache at once, from the disk by way of a few threads.
//!
//! `preadv2(RWF_NOWAIT)` copies what is in memory on the async thread, which costs no more than a hand-over would, and
//! says so where it would have to wait for the disk. It also tells whether the kernel can send a part by itself without
//! having the thread wait.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::flight::ports::FileSlice;

/// Reads slices of files into buffers that are used again.
#[derive(Debug)]
pub(super) struct FileReads {
    idle: Mutex<Vec<Box<[u8]>>>,
    disk: Arc<Semaphore>,
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    home: Arc<FileReads>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl FileReads {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            disk: Arc::new(Semaphore::new(DISK_READS)),
        })
    }

    /// The first bytes of `slice`, at most [`BUFFER`]; never none of a slice that has some. A file that ends within
    /// the slice is an error. They hold `turn` for as long as they are.
    pub(super) async fn read(
        self: &Arc<Self>,
        slice: &FileSlice,
        turn: Option<OwnedSemaphorePermit>,
    ) -> io::Result<Bytes> {
        let offset = slice.range.start;
        let want = usize::try_from(slice.range.end.saturating_sub(offset))
            .unwrap_or(BUFFER)
            .min(BUFFER);
        let mut buffer = self.buffer(turn);
        match read_cached(&slice.file, &mut buffer.bytes[..want], offset) {
            Ok(filled) => return buffer.finish(filled),
            Err(error) if must_wait(&error) => {}
            Err(error) => return Err(error),
        }
        let permit = Arc::clone(&self.disk)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let slice = slice.clone();
        tokio::task::spawn_blocking(move || {
            let read = read_from_disk(&slice.file, &mut buffer.bytes[..want], offset);
            drop(permit);
            buffer.finish(read?)
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Waits until the bytes of `slice`, at most a few MiB, are in memory, as far as can be told. A file that ends
    /// within the slice is an error.
    pub(super) async fn cache(self: &Arc<Self>, slice: &FileSlice) -> io::Result<()> {
        if is_cached(slice)? {
            return Ok(());
        }
        let permit = Arc::clone(&self.disk)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let mut buffer = self.buffer(None);
        let slice = slice.clone();
        tokio::task::spawn_blocking(move || {
            let read = read_through(&slice, &mut buffer.bytes);
            drop(permit);
            read
        })
        .await
        .map_err(io::Error::other)?
    }

    fn buffer(self: &Arc<Self>, turn: Option<OwnedSemaphorePermit>) -> Buffer {
        let idle = self.idle.lock().pop();
        Buffer {
            bytes: idle.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice()),
            filled: 0,
            home: Arc::clone(self),
            _turn: turn,
        }
    }
}

impl Buffer {
    fn finish(mut self, filled: usize) -> io::Result<Bytes> {
        if filled == 0 {
            return Err(too_short());
        }
        self.filled = filled;
        Ok(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.home.idle.lock();
        if idle.len() < IDLE_BUFFERS {
            idle.push(bytes);
        }
    }
}

/// Whether the kernel has a slice that is not empty in memory: its first byte, which leaves memory before the others,
/// and its last, which comes after them. A file that ends within the slice is an error.
pub(super) fn is_cached(slice: &FileSlice) -> io::Result<bool> {
    for offset in [slice.range.start, slice.range.end.saturating_sub(1)] {
        match read_cached(&slice.file, &mut [0], offset) {
            Ok(0) => return Err(too_short()),
            Ok(_) => {}
            Err(error) if must_wait(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Has the disk read a slice into the kernel's memory, and begin with as much of what follows. Blocks.
fn read_through(slice: &FileSlice, buffer: &mut [u8]) -> io::Result<()> {
    let Range { mut start, end } = slice.range;
    #[cfg(target_os = "linux")]
    {
        let ahead = std::num::NonZeroU64::new(2 * end.saturating_sub(start));
        let advice = rustix::fs::Advice::WillNeed;
        // A hint: what it does not bring is read below.
        let _ = rustix::fs::fadvise(&slice.file, start, ahead, advice);
    }
    while start < end {
        let want = usize::try_from(end - start).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        match read_from_disk(&slice.file, &mut buffer[..want], start)? {
            0 => return Err(too_short()),
            got => start += got as u64,
        }
    }
    Ok(())
}

pub(super) fn too_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file is shorter than it was",
    )
}

/// Copies what is in memory; an error for which [`must_wait`] holds where nothing is.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut slices = [io::IoSliceMut::new(buffer)];
    Ok(preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT)?)
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_file: &File, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether the bytes are not in memory, or the file system cannot tell.
fn must_wait(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, InvalidInput, Unsupported, WouldBlock};
    matches!(
        error.kind(),
        WouldBlock | Interrupted | Unsupported | InvalidInput
    )
}

pub(super) fn read_from_disk(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Size of a buffer: what each connection that copies has ahead of its socket, or twice that.
pub(super) const BUFFER: usize = 32 * 1024;
/// Buffers kept for reuse: 2 MiB.
const IDLE_BUFFERS: usize = 64;
/// Reads that wait for the disk at once.
const DISK_READS: usize = 32;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn slice(content: &[u8], range: Range<u64>) -> FileSlice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        FileSlice {
            file: Arc::new(file),
            range,
            hold: None,
        }
    }

    #[tokio::test]
    async fn a_slice_is_read_in_pieces_of_a_buffer() {
        let content: Vec<u8> = (0..=255).cycle().take(BUFFER * 2 + 10).collect();
        let reads = FileReads::new();
        let mut rest = slice(&content, 3..content.len() as u64);
        let mut got = Vec::new();
        while !rest.range.is_empty() {
            let bytes = reads.read(&rest, None).await.unwrap();
            assert!(bytes.len() <= BUFFER);
            rest.range.start += bytes.len() as u64;
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got, content[3..]);
    }

    #[tokio::test]
    async fn buffers_are_used_again() {
        let reads = FileReads::new();
        let slice = slice(b"hello", 0..5);
        let first = reads.read(&slice, None).await.unwrap();
        let place = first.as_ptr();
        drop(first);
        assert_eq!(reads.read(&slice, None).await.unwrap().as_ptr(), place);
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_is_an_error() {
        let reads = FileReads::new();
        let error = reads.read(&slice(b"hello", 5..9), None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_slice_that_has_left_memory_is_brought_back() {
        let slice = slice(&vec![7; 300_000], 1..299_999);
        slice.file.sync_all().unwrap();
        let gone = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&slice.file, 0, None, gone).unwrap();
        FileReads::new().cache(&slice).await.unwrap();
        assert!(is_cached(&slice).unwrap());
    }

    #[tokio::test]
    async fn a_file_that_ends_within_a_slice_is_not_in_memory() {
        let slice = slice(b"hello", 2..9);
        let error = FileReads::new().cache(&slice).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! A store in memory.

use std::any::Any;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, Semaphore};

use crate::flight::intervals::Intervals;
use crate::flight::ports::{Blob, Blobs, BoxFuture, Chunk, Leave, Stage, StageError, StageId};
use crate::oci::Digest;

/// A store in memory.
#[derive(Debug)]
pub(crate) struct MemoryBlobs {
    pub(crate) blobs: Mutex<HashMap<Digest, Bytes>>,
    /// Blobs that appear after the first look that misses them.
    pub(crate) after_first_look: Mutex<HashMap<Digest, Bytes>>,
    /// Commits wait for a permit, and fail once there are no more.
    pub(crate) commits: Semaphore,
    committed: AtomicU64,
    pub(crate) full: AtomicBool,
    /// What was left cannot be taken up, for want of room.
    pub(crate) full_for_left: AtomicBool,
    /// What was left cannot be looked at.
    pub(crate) left_unreadable: AtomicBool,
    /// How long a look at what was left takes.
    pub(crate) resume_takes: Mutex<Duration>,
    pub(crate) faults: Arc<Faults>,
    partials: Mutex<HashMap<StageId, Place>>,
}

/// What is wrong with the disk.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Writes beyond this position find no room.
    pub(crate) room: AtomicU64,
    /// Nothing can be read back.
    pub(crate) unreadable: AtomicBool,
    /// Lengths of the writes so far.
    pub(crate) writes: Mutex<Vec<usize>>,
}

/// Where one id's bytes are; locked by whoever holds the stage.
type Place = Arc<tokio::sync::Mutex<Option<Partial>>>;

#[derive(Debug, Clone, Default)]
struct Partial {
    len: Option<u64>,
    present: Intervals,
    bytes: Vec<u8>,
}

impl Default for MemoryBlobs {
    fn default() -> Self {
        Self {
            blobs: Mutex::default(),
            after_first_look: Mutex::default(),
            commits: Semaphore::new(1000),
            committed: AtomicU64::new(0),
            full: AtomicBool::new(false),
            full_for_left: AtomicBool::new(false),
            left_unreadable: AtomicBool::new(false),
            resume_takes: Mutex::default(),
            faults: Arc::new(Faults {
                room: AtomicU64::new(u64::MAX),
                unreadable: AtomicBool::new(false),
                writes: Mutex::default(),
            }),
            partials: Mutex::default(),
        }
    }
}

impl MemoryBlobs {
    /// Leaves `ranges` of `bytes` as an earlier fetch would have, of a blob that it took to have `len` bytes.
    pub(crate) fn leave(
        &self,
        id: StageId,
        bytes: &[u8],
        len: u64,
        ranges: impl IntoIterator<Item = Range<u64>>,
    ) {
        let mut present = Intervals::default();
        for range in ranges {
            present.insert(range);
        }
        let partial = Partial {
            len: Some(len),
            present,
            bytes: bytes.to_vec(),
        };
        let place = Arc::new(tokio::sync::Mutex::new(Some(partial)));
        self.partials.lock().insert(id, place);
    }

    /// How many bytes of this id are kept for a later fetch.
    pub(crate) async fn left(&self, id: &StageId) -> u64 {
        let partial = self.place(id).lock_owned().await;
        partial.as_ref().map_or(0, |partial| partial.present.len())
    }

    fn place(&self, id: &StageId) -> Place {
        Arc::clone(self.partials.lock().entry(id.clone()).or_default())
    }
}

impl Blobs for MemoryBlobs {
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Arc<dyn Blob>>>> {
        Box::pin(async move {
            let found = self.blobs.lock().get(digest).cloned();
            if let Some(late) = self.after_first_look.lock().remove(digest) {
                self.blobs.lock().insert(digest.clone(), late);
                self.committed.fetch_add(1, Ordering::SeqCst);
            }
            Ok(found.map(|bytes| Arc::new(MemoryBlob(bytes)) as Arc<dyn Blob>))
        })
    }

    fn lacks(&self, digest: &Digest) -> bool {
        !self.blobs.lock().contains_key(digest)
    }

    fn commits(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    fn resume<'a>(
        &'a self,
        id: &'a StageId,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Stage>>, StageError>> {
        Box::pin(async move {
            let takes = *self.resume_takes.lock();
            tokio::time::sleep(takes).await;
            if self.full_for_left.load(Ordering::SeqCst) {
                return Err(StageError::NoRoom { needed: 0 });
            }
            if self.left_unreadable.load(Ordering::SeqCst) {
                return Err(io::Error::other("the disk cannot be read").into());
            }
            let mut place = self.place(id).lock_owned().await;
            let partial = place.take();
            Ok(partial.map(|partial| MemoryStage::open(partial, place, &self.faults)))
        })
    }

    fn stage<'a>(
        &'a self,
        id: &'a StageId,
        len: Option<u64>,
    ) -> BoxFuture<'a, Result<Arc<dyn Stage>, StageError>> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Err(StageError::NoRoom {
                    needed: len.unwrap_or(0),
                });
            }
            let mut place = self.place(id).lock_owned().await;
            *place = None;
            let partial = Partial {
                len,
                ..Partial::default()
            };
            Ok(MemoryStage::open(partial, place, &self.faults))
        })
    }

    fn commit<'a>(
        &'a self,
        stage: Arc<dyn Stage>,
        len: u64,
        digest: &'a Digest,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let permit = self.commits.acquire().await;
            permit.map_err(io::Error::other)?.forget();
            let Chunk::Bytes(bytes) = stage.chunk(0..len) else {
                panic!("a stage in memory")
            };
            self.blobs.lock().insert(digest.clone(), bytes);
            self.committed.fetch_add(1, Ordering::SeqCst);
            stage.close(Leave::Nothing);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct MemoryBlob(Bytes);

impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Chunk>> {
        Box::pin(async move { Ok(Chunk::Bytes(self.0.slice(positions(&range)))) })
    }
}

fn positions(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

#[derive(Debug)]
struct MemoryStage {
    len: Option<u64>,
    present: Vec<Range<u64>>,
    content: Mutex<Partial>,
    /// Until it is closed.
    place: Mutex<Option<OwnedMutexGuard<Option<Partial>>>>,
    faults: Arc<Faults>,
}

impl MemoryStage {
    fn open(
        partial: Partial,
        place: OwnedMutexGuard<Option<Partial>>,
        faults: &Arc<Faults>,
    ) -> Arc<dyn Stage> {
        Arc::new(Self {
            len: partial.len,
            present: partial.present.iter().collect(),
            content: Mutex::new(partial),
            place: Mutex::new(Some(place)),
            faults: Arc::clone(faults),
        })
    }
}

impl Stage for MemoryStage {
    fn len(&self) -> Option<u64> {
        self.len
    }

    fn present(&self) -> Vec<Range<u64>> {
        self.present.clone()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.faults.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk cannot be read"));
        }
        let at = positions(&(offset..offset + buffer.len() as u64));
        buffer.copy_from_slice(&self.content.lock().bytes[at]);
        Ok(())
    }

    fn close(&self, leave: Leave) {
        let Some(mut place) = self.place.lock().take() else {
            return;
        };
        let is_kept = leave == Leave::Resumable && self.len.is_some();
        *place = is_kept.then(|| self.content.lock().clone());
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if self.place.lock().is_none() {
            return Err(io::Error::other("the stage is closed"));
        }
        let end = offset + bytes.len() as u64;
        if end > self.faults.room.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.faults.writes.lock().push(bytes.len());
        let mut content = self.content.lock();
        let at = positions(&(offset..end));
        if content.bytes.len() < at.end {
            content.bytes.resize(at.end, 0);
        }
        content.bytes[at].copy_from_slice(&bytes);
        content.present.insert(offset..end);
        Ok(())
    }

    fn chunk(&self, range: Range<u64>) -> Chunk {
        Chunk::Bytes(Bytes::copy_from_slice(
            &self.content.lock().bytes[positions(&range)],
        ))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for MemoryStage {
    fn drop(&mut self) {
        self.close(Leave::Resumable);
    }
}

mod tests {
    use std::future::{Ready, ready};

    use super::*;
    use crate::flight::conformance::blobs_conform;

    fn memory() -> Ready<((), Arc<dyn Blobs>)> {
        ready(((), Arc::new(MemoryBlobs::default())))
    }

    blobs_conform!(memory);
}

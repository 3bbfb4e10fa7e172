//! The disk as a place for blobs.

use std::any::Any;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use crate::config::UpstreamName;
use crate::flight::ports::{
    Blob, Blobs, BoxFuture, Chunk, FileSlice, Leave, Stage, StageError, StageId,
};
use crate::oci::Digest;
use crate::store::{RoomError, StageKey, StagedBlob, Store, StoredBlob};

use super::blocking;

/// Most bytes that one chunk of a stored blob covers.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// Blobs in the data directory.
#[derive(Debug)]
pub(in crate::proxy) struct StoreBlobs(pub(in crate::proxy) Arc<Store>);

impl Blobs for StoreBlobs {
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Arc<dyn Blob>>>> {
        let store = Arc::clone(&self.0);
        let digest = digest.clone();
        Box::pin(async move {
            let found = blocking(move || store.open_blob(&digest)).await??;
            Ok(found.map(|blob| Arc::new(DiskBlob(blob)) as Arc<dyn Blob>))
        })
    }

    fn commits(&self) -> u64 {
        self.0.commits()
    }

    fn lacks(&self, digest: &Digest) -> bool {
        self.0.lacks_blob(digest)
    }

    fn resume<'a>(
        &'a self,
        id: &'a StageId,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Stage>>, StageError>> {
        Box::pin(async move {
            let resumed = self.0.resume(&key(id)?).await.map_err(no_stage)?;
            Ok(resumed.map(|staged| Arc::new(DiskStage(staged)) as Arc<dyn Stage>))
        })
    }

    fn stage<'a>(
        &'a self,
        id: &'a StageId,
        len: Option<u64>,
    ) -> BoxFuture<'a, Result<Arc<dyn Stage>, StageError>> {
        Box::pin(async move {
            let staged = self.0.stage(&key(id)?, len).await.map_err(no_stage)?;
            Ok(Arc::new(DiskStage(staged)) as Arc<dyn Stage>)
        })
    }

    fn commit<'a>(
        &'a self,
        stage: Arc<dyn Stage>,
        len: u64,
        digest: &'a Digest,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let Some(DiskStage(staged)) = stage.as_any().downcast_ref() else {
                return Err(io::Error::other(
                    "a stage of another store cannot be committed",
                ));
            };
            self.0.commit(staged, len, digest).await.map(|_| ())
        })
    }
}

#[derive(Debug)]
pub(super) struct DiskBlob(pub(super) StoredBlob);

impl Blob for DiskBlob {
    fn len(&self) -> u64 {
        self.0.len
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Chunk>> {
        let end = range.end.min(range.start.saturating_add(CHUNK_BYTES));
        let slice = FileSlice {
            file: Arc::clone(&self.0.file),
            range: range.start..end,
            hold: self.0.hold(),
        };
        Box::pin(async { Ok(Chunk::File(slice)) })
    }
}

#[derive(Debug)]
pub(super) struct DiskStage(pub(super) StagedBlob);

impl Stage for DiskStage {
    fn len(&self) -> Option<u64> {
        self.0.len()
    }

    fn present(&self) -> Vec<Range<u64>> {
        self.0.present().to_vec()
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_parts_at(offset, parts)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn chunk(&self, range: Range<u64>) -> Chunk {
        Chunk::File(FileSlice {
            file: self.0.file(),
            range,
            hold: Some(self.0.hold()),
        })
    }

    fn close(&self, leave: Leave) {
        match leave {
            Leave::Resumable => self.0.keep(),
            Leave::Nothing => self.0.discard(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The stage that a blob of this upstream is fetched into.
pub(in crate::proxy) fn stage_of(upstream: &UpstreamName, digest: &Digest) -> Option<StageKey> {
    key(&StageId::of_blob(upstream.as_str(), digest)).ok()
}

fn key(id: &StageId) -> io::Result<StageKey> {
    StageKey::parse(id.as_str())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a stage has no such id"))
}

fn no_stage(error: RoomError) -> StageError {
    match error {
        RoomError::NoRoom { needed, .. } => StageError::NoRoom { needed },
        RoomError::Io(error) => StageError::Io(error),
    }
}

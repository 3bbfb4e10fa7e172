//! The disk as a place for blobs.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::flight::ports::{
    Blob, Blobs, BoxFuture, Chunk, FileSlice, Leave, Stage, StageError, StageId,
};
use crate::oci::Digest;
use crate::store::{RoomError, StagedBlob, Store, StoredBlob};

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

    fn resume<'a>(
        &'a self,
        _: &'a StageId,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Stage>>, StageError>> {
        Box::pin(async { Ok(None) })
    }

    fn stage<'a>(
        &'a self,
        _: &'a StageId,
        len: Option<u64>,
    ) -> BoxFuture<'a, Result<Arc<dyn Stage>, StageError>> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            match blocking(move || store.stage(len)).await? {
                Ok(staged) => Ok(Arc::new(DiskStage { staged, len }) as Arc<dyn Stage>),
                Err(RoomError::NoRoom { needed }) => Err(StageError::NoRoom { needed }),
                Err(RoomError::Io(error)) => Err(StageError::Io(error)),
            }
        })
    }

    fn commit<'a>(
        &'a self,
        stage: Arc<dyn Stage>,
        len: u64,
        digest: &'a Digest,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let Some(DiskStage { staged, .. }) = stage.as_any().downcast_ref() else {
                return Err(io::Error::other(
                    "a stage of another store cannot be committed",
                ));
            };
            self.0.commit(staged, len, digest).await
        })
    }
}

#[derive(Debug)]
struct DiskBlob(StoredBlob);

impl Blob for DiskBlob {
    fn len(&self) -> u64 {
        self.0.len
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Chunk>> {
        let end = range.end.min(range.start.saturating_add(CHUNK_BYTES));
        let slice = FileSlice {
            file: Arc::clone(&self.0.file),
            range: range.start..end,
        };
        Box::pin(async { Ok(Chunk::File(slice)) })
    }
}

#[derive(Debug)]
struct DiskStage {
    staged: StagedBlob,
    len: Option<u64>,
}

impl Stage for DiskStage {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.staged.write_at(offset, bytes)
    }

    fn len(&self) -> Option<u64> {
        self.len
    }

    fn present(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.staged.read_at(offset, buffer)
    }

    // It is removed when it is dropped.
    fn close(&self, _: Leave) {}

    fn chunk(&self, range: Range<u64>) -> Chunk {
        Chunk::File(FileSlice {
            file: self.staged.file(),
            range,
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

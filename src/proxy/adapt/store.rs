//! The disk as a place for blobs.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::flight::ports::{Blob, Blobs, BoxFuture, Chunk, FileSlice, Stage, StageError};
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

    fn stage(&self, len: Option<u64>) -> BoxFuture<'_, Result<Arc<dyn Stage>, StageError>> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            match blocking(move || store.stage(len)).await? {
                Ok(staged) => Ok(Arc::new(DiskStage(staged)) as Arc<dyn Stage>),
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
            let Some(DiskStage(staged)) = stage.as_any().downcast_ref() else {
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
struct DiskStage(StagedBlob);

impl Stage for DiskStage {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn chunk(&self, range: Range<u64>) -> Chunk {
        Chunk::File(FileSlice {
            file: self.0.file(),
            range,
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

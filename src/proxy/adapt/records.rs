//! The disk as a place for small records and for the bytes of manifests.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::UpstreamName;
use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, RepoName};
use crate::proxy::ports::{MAX_MANIFEST, Records, Refs};
use crate::store::{RefKey, RefKindName, Store};

use super::blocking;

/// Records in the data directory.
#[derive(Debug)]
pub(in crate::proxy) struct StoreRecords(pub(in crate::proxy) Arc<Store>);

impl StoreRecords {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = Arc::clone(&self.0);
        blocking(move || work(&store)).await?
    }
}

impl Refs for StoreRecords {
    fn get<'a>(&'a self, key: &'a RefKey) -> BoxFuture<'a, io::Result<Option<Vec<u8>>>> {
        let key = key.clone();
        Box::pin(self.with(move |store| store.get_ref(&key)))
    }

    fn first<'a>(&'a self, keys: &'a [RefKey]) -> BoxFuture<'a, io::Result<Option<Vec<u8>>>> {
        let keys = keys.to_owned();
        Box::pin(self.with(move |store| {
            let mut none = Ok(None);
            for key in &keys {
                match store.get_ref(key) {
                    Ok(None) => {}
                    Ok(found) => return Ok(found),
                    Err(error) => none = Err(error),
                }
            }
            none
        }))
    }

    fn put<'a>(&'a self, key: &'a RefKey, record: Vec<u8>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.0.put_ref(key, record).await })
    }

    fn compare_and_put<'a>(
        &'a self,
        key: &'a RefKey,
        expected: Option<&'a [u8]>,
        record: Vec<u8>,
    ) -> BoxFuture<'a, io::Result<bool>> {
        Box::pin(async move { self.0.compare_and_put_ref(key, expected, record).await })
    }

    fn remove<'a>(&'a self, key: &'a RefKey) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.0.remove_ref(key).await.map(|_| ()) })
    }

    fn list<'a>(
        &'a self,
        upstream: &'a UpstreamName,
        repository: &'a RepoName,
        kind: RefKindName,
    ) -> BoxFuture<'a, io::Result<Vec<RefKey>>> {
        let (upstream, repository) = (upstream.clone(), repository.clone());
        Box::pin(self.with(move |store| store.list_refs(&upstream, &repository, kind)))
    }

    fn repositories(&self) -> BoxFuture<'_, io::Result<Vec<(UpstreamName, RepoName)>>> {
        Box::pin(self.with(Store::repositories))
    }
}

impl Records for StoreRecords {
    fn read_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Bytes>>> {
        let digest = digest.clone();
        Box::pin(self.with(move |store| {
            let Some(blob) = store.open_blob(&digest)? else {
                return Ok(None);
            };
            if blob.len > MAX_MANIFEST {
                return Ok(None);
            }
            let mut bytes = vec![0; usize::try_from(blob.len).map_err(io::Error::other)?];
            std::os::unix::fs::FileExt::read_exact_at(&*blob.file, &mut bytes, 0)?;
            Ok(Some(bytes.into()))
        }))
    }

    fn blob_len<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<u64>>> {
        let digest = digest.clone();
        Box::pin(self.with(move |store| store.blob_len(&digest)))
    }

    fn put_blob<'a>(&'a self, bytes: Bytes, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(self.0.put_blob(bytes, digest))
    }

    fn discard_blob<'a>(&'a self, digest: &'a Digest, len: u64) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.0.discard_blob(digest, len).await.map(|_| ()) })
    }
}

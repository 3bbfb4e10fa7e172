//! A disk in memory.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::UpstreamName;
use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, RepoName};
use crate::store::{RefKey, RefKind, RefKindName};

use super::super::ports::{MAX_MANIFEST, Records, Refs};
use super::Gate;

/// A disk in memory.
#[derive(Debug, Default)]
pub(in crate::proxy) struct FakeRecords {
    refs: Mutex<HashMap<RefKey, Vec<u8>>>,
    pub(in crate::proxy) blobs: Mutex<HashMap<Digest, Bytes>>,
    /// What was written, in order: `blob`, `tag`, `manifest`, `proof`, `list`.
    written: Mutex<Vec<&'static str>>,
    /// Whether there is no room for blobs.
    pub(in crate::proxy) is_full: AtomicBool,
    /// Proofs of blobs that were looked up.
    pub(in crate::proxy) proofs_read: AtomicUsize,
    gate: Gate,
    reads: Gate,
    /// Nothing but this is held back by `reads`.
    held_back: Mutex<Option<&'static str>>,
}

impl FakeRecords {
    pub(in crate::proxy) fn seed(&self, key: &RefKey, record: &[u8]) {
        self.refs.lock().insert(key.clone(), record.to_owned());
    }

    pub(in crate::proxy) fn stored(&self, key: &RefKey) -> Option<String> {
        let record = self.refs.lock().get(key).cloned();
        record.map(|record| String::from_utf8(record).unwrap())
    }

    /// Number of records and blobs.
    pub(in crate::proxy) fn len(&self) -> usize {
        self.refs.lock().len() + self.blobs.lock().len()
    }

    /// Number of records of one kind.
    pub(in crate::proxy) fn count(&self, kind: RefKindName) -> usize {
        let refs = self.refs.lock();
        refs.keys()
            .filter(|key| name(&key.kind).0 == Some(kind))
            .count()
    }

    /// Number of stored lists.
    pub(in crate::proxy) fn lists(&self) -> usize {
        let refs = self.refs.lock();
        refs.keys()
            .filter(|key| name(&key.kind).0.is_none())
            .count()
    }

    /// Writes nothing until [`FakeRecords::release`].
    pub(in crate::proxy) fn hold(&self) {
        self.gate.shut();
    }

    pub(in crate::proxy) fn release(&self) {
        self.gate.open();
    }

    /// Reads nothing until [`FakeRecords::release_reads`].
    pub(in crate::proxy) fn hold_reads(&self) {
        self.reads.shut();
    }

    /// Does not read what is called so in [`FakeRecords::written`], until [`FakeRecords::release_reads`].
    pub(in crate::proxy) fn hold_reads_of(&self, what: &'static str) {
        *self.held_back.lock() = Some(what);
        self.reads.shut();
    }

    pub(in crate::proxy) fn release_reads(&self) {
        *self.held_back.lock() = None;
        self.reads.open();
    }

    /// What was written, in order, and forgets it.
    pub(in crate::proxy) fn written(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.written.lock())
    }

    async fn read(&self, what: &'static str) {
        let waits = self.held_back.lock().is_none_or(|held| held == what);
        if waits {
            self.reads.pass().await;
        }
    }

    async fn write(&self, what: &'static str) -> io::Result<()> {
        self.gate.pass().await;
        if what == "blob" && self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.lock().push(what);
        Ok(())
    }
}

fn name(kind: &RefKind) -> (Option<RefKindName>, &'static str) {
    match kind {
        RefKind::Tag(_) => (Some(RefKindName::Tag), "tag"),
        RefKind::Manifest(_) => (Some(RefKindName::Manifest), "manifest"),
        RefKind::Blob(_) => (Some(RefKindName::Blob), "proof"),
        RefKind::List(_) => (None, "list"),
    }
}

impl Refs for FakeRecords {
    fn get<'a>(&'a self, key: &'a RefKey) -> BoxFuture<'a, io::Result<Option<Vec<u8>>>> {
        if matches!(key.kind, RefKind::Blob(_)) {
            self.proofs_read.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            self.read(name(&key.kind).1).await;
            Ok(self.refs.lock().get(key).cloned())
        })
    }

    fn first<'a>(&'a self, keys: &'a [RefKey]) -> BoxFuture<'a, io::Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let mut none = Ok(None);
            for key in keys {
                match self.get(key).await {
                    Ok(None) => {}
                    Ok(found) => return Ok(found),
                    Err(error) => none = Err(error),
                }
            }
            none
        })
    }

    fn put<'a>(&'a self, key: &'a RefKey, record: Vec<u8>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.write(name(&key.kind).1).await?;
            self.refs.lock().insert(key.clone(), record);
            Ok(())
        })
    }

    fn compare_and_put<'a>(
        &'a self,
        key: &'a RefKey,
        expected: Option<&'a [u8]>,
        record: Vec<u8>,
    ) -> BoxFuture<'a, io::Result<bool>> {
        Box::pin(async move {
            self.write(name(&key.kind).1).await?;
            let mut refs = self.refs.lock();
            let is_expected = refs.get(key).map(Vec::as_slice) == expected;
            if is_expected {
                refs.insert(key.clone(), record);
            }
            Ok(is_expected)
        })
    }

    fn remove<'a>(&'a self, key: &'a RefKey) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.refs.lock().remove(key);
            Ok(())
        })
    }

    fn list<'a>(
        &'a self,
        upstream: &'a UpstreamName,
        repository: &'a RepoName,
        kind: RefKindName,
    ) -> BoxFuture<'a, io::Result<Vec<RefKey>>> {
        Box::pin(async move {
            let refs = self.refs.lock();
            let of_place = refs.keys().filter(|key| {
                key.upstream == *upstream
                    && key.repository == *repository
                    && name(&key.kind).0 == Some(kind)
            });
            Ok(of_place.cloned().collect())
        })
    }

    fn repositories(&self) -> BoxFuture<'_, io::Result<Vec<(UpstreamName, RepoName)>>> {
        Box::pin(async move {
            let refs = self.refs.lock();
            let all: HashSet<_> = refs
                .keys()
                .map(|key| (key.upstream.clone(), key.repository.clone()))
                .collect();
            Ok(all.into_iter().collect())
        })
    }
}

impl Records for FakeRecords {
    fn read_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Bytes>>> {
        Box::pin(async move {
            self.read("blob").await;
            let bytes = self.blobs.lock().get(digest).cloned();
            Ok(bytes.filter(|bytes| bytes.len() as u64 <= MAX_MANIFEST))
        })
    }

    fn blob_len<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<u64>>> {
        Box::pin(async move {
            self.read("blob").await;
            Ok(self.blobs.lock().get(digest).map(|b| b.len() as u64))
        })
    }

    fn put_blob<'a>(&'a self, bytes: Bytes, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.write("blob").await?;
            self.blobs.lock().insert(digest.clone(), bytes);
            Ok(())
        })
    }

    fn discard_blob<'a>(&'a self, digest: &'a Digest, len: u64) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut blobs = self.blobs.lock();
            if blobs
                .get(digest)
                .is_some_and(|blob| blob.len() as u64 == len)
            {
                blobs.remove(digest);
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn records_in_memory_keep_the_contract() {
    super::records_conform(&FakeRecords::default()).await;
}

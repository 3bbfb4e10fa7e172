//! A proxy that has what a test gives it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::UpstreamName;
use crate::flight::ports::{BoxFuture, Chunk, FileSlice};
use crate::oci::{Digest, MediaType, Reference, TagsQuery, Target};
use crate::proxy::{
    BlobAnswer, BlobContent, BlobReader, BlobUse, BrokenBody, CacheOutcome, CatalogPage, Error,
    ListAnswer, ManifestAnswer, Place, SelectError, Selected, What,
};
use crate::server::Content;
use crate::upstream::Call;

/// Content by reference and digest, whatever the repository.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) manifests: Mutex<HashMap<String, Result<ManifestAnswer, Error>>>,
    pub(super) blobs: Mutex<HashMap<Digest, FakeBlob>>,
    pub(super) list: Mutex<Option<ListAnswer>>,
    pub(super) catalog: Mutex<Vec<String>>,
    /// What blobs were asked for.
    pub(super) usages: Mutex<Vec<BlobUse>>,
    /// The manifests that went to clients.
    pub(super) sent: Mutex<Vec<Digest>>,
    /// The last call's.
    pub(super) call: Mutex<Option<Call>>,
    /// Whether nothing is ever answered.
    pub(super) hangs: Mutex<bool>,
}

#[derive(Clone)]
pub(super) struct FakeBlob {
    len: Option<u64>,
    content: Arc<dyn BlobContent>,
    outcome: CacheOutcome,
}

pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(bytes)
}

impl Fake {
    pub(super) fn manifest(&self, reference: &str, bytes: &'static [u8], outcome: CacheOutcome) {
        let answer = ManifestAnswer {
            bytes: Bytes::from_static(bytes),
            media_type: MediaType::parse(MediaType::OCI_MANIFEST).unwrap(),
            digest: Digest::sha256(bytes),
            outcome,
            warning: matches!(outcome, CacheOutcome::Stale(_)).then(|| "it is \"old\"".to_owned()),
        };
        let mut manifests = self.manifests.lock();
        manifests.insert(reference.to_owned(), Ok(answer));
    }

    pub(super) fn failing(&self, reference: &str, error: Error) {
        self.manifests
            .lock()
            .insert(reference.to_owned(), Err(error));
    }

    /// A blob in memory, in chunks of a thousand bytes.
    pub(super) fn blob(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        let len = Some(bytes.len() as u64);
        self.put(&digest, len, Arc::new(InMemory(bytes)), CacheOutcome::Hit);
        digest
    }

    /// A blob in a file.
    pub(super) fn file_blob(&self, bytes: &[u8]) -> Digest {
        self.open_blob(bytes);
        Digest::sha256(bytes)
    }

    /// The same; gives its file.
    pub(super) fn open_blob(&self, bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let (file, len) = (Arc::new(file), bytes.len() as u64);
        let content = Arc::new(InFile(Arc::clone(&file), len));
        let digest = Digest::sha256(bytes);
        self.put(&digest, Some(len), content, CacheOutcome::Hit);
        file
    }

    /// A blob whose bytes come as the test sends them, for one reader.
    pub(super) fn live_blob(&self, digest: &Digest, len: Option<u64>) -> mpsc::Sender<Piece> {
        let (sender, receiver) = mpsc::channel(16);
        let content = Live(Mutex::new(Some(receiver)));
        self.put(digest, len, Arc::new(content), CacheOutcome::Miss);
        sender
    }

    fn put(
        &self,
        digest: &Digest,
        len: Option<u64>,
        content: Arc<dyn BlobContent>,
        outcome: CacheOutcome,
    ) {
        let blob = FakeBlob {
            len,
            content,
            outcome,
        };
        self.blobs.lock().insert(digest.clone(), blob);
    }
}

impl Content for Fake {
    fn select(&self, target: &Target, _host: Option<&str>) -> Result<Selected, SelectError> {
        let upstream: UpstreamName = target.ns.as_deref().unwrap_or("docker.io").parse().unwrap();
        match target.repository.as_str() {
            "unknown" => Err(SelectError::Unknown {
                what: "this name".to_owned(),
                hint: "configure it".to_owned(),
            }),
            "forbidden" => Err(SelectError::Forbidden {
                upstream,
                repository: target.repository.clone(),
            }),
            _ => Ok(Selected {
                place: Place {
                    upstream,
                    repository: target.repository.clone(),
                },
                ns: target.ns.clone(),
                link_base: target.path(),
            }),
        }
    }

    fn manifest<'a>(
        &'a self,
        _place: &'a Place,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ManifestAnswer, Error>> {
        Box::pin(async move {
            *self.call.lock() = Some(call.clone());
            assert_ne!(reference.to_string(), "panic", "on purpose");
            if *self.hangs.lock() {
                std::future::pending::<()>().await;
            }
            let manifests = self.manifests.lock();
            let found = manifests.get(&reference.to_string()).cloned();
            found.unwrap_or_else(|| Err(missing(What::Manifest)))
        })
    }

    fn sends(&self, manifest: &ManifestAnswer) {
        self.sent.lock().push(manifest.digest.clone());
    }

    fn blob<'a>(
        &'a self,
        _place: &'a Place,
        digest: &'a Digest,
        usage: BlobUse,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<BlobAnswer, Error>> {
        Box::pin(async move {
            self.usages.lock().push(usage.clone());
            let found = self.blobs.lock().get(digest).cloned();
            let blob = found.ok_or_else(|| missing(What::Blob))?;
            Ok(match (usage, blob.len) {
                (BlobUse::Head, Some(len)) => BlobAnswer::head(len, blob.outcome),
                (_, len) => BlobAnswer::new(len, blob.outcome, blob.content),
            })
        })
    }

    fn tags<'a>(
        &'a self,
        _place: &'a Place,
        _query: &'a TagsQuery,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(async { self.list.lock().clone().ok_or_else(|| missing(What::Tags)) })
    }

    fn referrers<'a>(
        &'a self,
        _place: &'a Place,
        _digest: &'a Digest,
        _artifact_types: &'a [String],
        _query: &'a str,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(async {
            self.list
                .lock()
                .clone()
                .ok_or_else(|| missing(What::Referrers))
        })
    }

    fn catalog<'a>(
        &'a self,
        n: Option<u32>,
        last: Option<&'a str>,
    ) -> BoxFuture<'a, Result<CatalogPage, Error>> {
        Box::pin(async move {
            let all = self.catalog.lock();
            let behind = all
                .iter()
                .filter(|name| last.is_none_or(|last| name.as_str() > last));
            let most = n.map_or(usize::MAX, |n| n as usize);
            Ok(CatalogPage {
                more: behind.clone().count() > most,
                repositories: behind.take(most).cloned().collect(),
            })
        })
    }
}

fn missing(what: What) -> Error {
    Error::NotFound {
        what,
        message: "the upstream has no such thing".to_owned(),
    }
}

/// What a live blob's reader is given.
pub(super) type Piece = Result<Bytes, BrokenBody>;

struct InMemory(Bytes);
struct InFile(Arc<File>, u64);
struct Live(Mutex<Option<mpsc::Receiver<Piece>>>);

macro_rules! nameless {
    ($($kind:ty),*) => {$(
        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($kind))
            }
        }
    )*};
}
nameless!(InMemory, InFile, Live);

impl BlobContent for InMemory {
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        let range = range.unwrap_or(0..self.0.len() as u64);
        let (start, end) = (
            usize::try_from(range.start).unwrap(),
            usize::try_from(range.end).unwrap(),
        );
        let bytes = self.0.slice(start..end);
        let chunks = (0..bytes.len())
            .step_by(1000)
            .map(|at| bytes.slice(at..bytes.len().min(at + 1000)))
            .map(Chunk::Bytes);
        Box::new(Chunks(chunks.collect::<Vec<_>>().into_iter()))
    }
}

impl BlobContent for InFile {
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        let slice = FileSlice {
            file: Arc::clone(&self.0),
            range: range.unwrap_or(0..self.1),
            hold: None,
        };
        Box::new(Chunks(vec![Chunk::File(slice)].into_iter()))
    }
}

impl BlobContent for Live {
    fn reader(&self, _range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        Box::new(LiveReader(self.0.lock().take().expect("one reader")))
    }
}

struct Chunks(std::vec::IntoIter<Chunk>);
struct LiveReader(mpsc::Receiver<Piece>);

impl BlobReader for Chunks {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(async { self.0.next().map(Ok) })
    }

    fn source(&self) -> &'static str {
        "cache"
    }
}

impl BlobReader for LiveReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(async { Some(self.0.recv().await?.map(Chunk::Bytes)) })
    }

    fn source(&self) -> &'static str {
        "flight"
    }
}

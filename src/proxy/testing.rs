//! A scripted upstream and a disk in memory, for the tests of the decisions.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Limits, TagPolicy, UpstreamName};
use crate::flight::ports::{BoxFuture, RefKey, RefKind, RefKindName, Refs};
use crate::oci::{Digest, MediaType, Reference, RepoName, TagsQuery};
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;
use crate::upstream::{BlobHead, Call, Error, ListAnswer, Manifest, ManifestHead};

use super::Place;
use super::context::{Context, Remote};
use super::lists::Lists;
use super::manifests::Manifests;
use super::membership::Membership;
use super::ports::{MAX_MANIFEST, Records, Registry};
use super::tags::Tags;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn place(upstream: &str, repository: &str) -> Place {
    Place {
        upstream: upstream.parse().unwrap(),
        repository: repository.parse().unwrap(),
    }
}

/// The repository that most tests are about.
pub(super) fn ubuntu() -> Place {
    place("docker.io", "library/ubuntu")
}

/// A request that has twenty seconds.
pub(super) fn call() -> Call {
    Call {
        deadline: Instant::now() + 20 * SECOND,
        via: None,
    }
}

/// The policy of `[tags]` by default.
pub(super) fn policy() -> TagPolicy {
    TagPolicy {
        ttl: MINUTE,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::MAX,
        stale_if_gone: Duration::MAX,
        stale_if_denied: Duration::MAX,
        negative_ttl: 10 * SECOND,
    }
}

/// An image manifest of one layer, told apart by `name`.
pub(super) fn image(name: &str) -> String {
    let config = Digest::sha256(format!("{name} config").as_bytes());
    let layer = Digest::sha256(format!("{name} layer").as_bytes());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":9}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":9}}]}}"#,
        MediaType::OCI_MANIFEST
    )
}

/// An index of these manifests.
pub(super) fn index(children: &[&str]) -> String {
    let children: Vec<String> = children
        .iter()
        .map(|child| {
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
                MediaType::OCI_MANIFEST,
                Digest::sha256(child.as_bytes()),
                child.len()
            )
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        MediaType::OCI_INDEX,
        children.join(",")
    )
}

pub(super) fn digest(body: &str) -> Digest {
    Digest::sha256(body.as_bytes())
}

fn media_type(body: &str) -> MediaType {
    let text = if body.contains(r#""manifests":"#) {
        MediaType::OCI_INDEX
    } else {
        MediaType::OCI_MANIFEST
    };
    MediaType::parse(text).unwrap()
}

pub(super) fn unavailable() -> Error {
    Error::Unavailable {
        message: "connection refused".to_owned(),
    }
}

pub(super) fn denied() -> Error {
    Error::Denied {
        message: "pull access denied".to_owned(),
        ours: false,
    }
}

pub(super) fn rate_limited() -> Error {
    Error::RateLimited {
        retry_after: None,
        message: "too many requests".to_owned(),
    }
}

pub(super) fn not_found() -> Error {
    Error::NotFound {
        message: "manifest unknown".to_owned(),
    }
}

/// One instance with a scripted upstream, `docker.io` and `ghcr.io` alike, over a disk in memory.
pub(super) struct World {
    pub(super) records: Arc<FakeRecords>,
    pub(super) registry: Arc<FakeRegistry>,
    pub(super) clock: Clock,
    pub(super) ctx: Arc<Context>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) tags: Arc<Tags>,
    pub(super) lists: Arc<Lists>,
    pub(super) membership: Arc<Membership>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&policy())
    }

    pub(super) fn with(policy: &TagPolicy) -> Self {
        Self::over(
            Arc::default(),
            Arc::default(),
            Clock::system(),
            policy,
            false,
        )
    }

    /// What a restart leaves: disk, upstream and time.
    pub(super) fn restarted(&self, policy: &TagPolicy) -> Self {
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        Self::over(records, registry, self.clock.clone(), policy, false)
    }

    pub(super) fn restarted_offline(&self) -> Self {
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        Self::over(records, registry, self.clock.clone(), &policy(), true)
    }

    /// A restart with the clock set back to the real time.
    pub(super) fn restarted_in_the_past(&self) -> Self {
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        Self::over(records, registry, Clock::system(), &policy(), false)
    }

    fn over(
        records: Arc<FakeRecords>,
        registry: Arc<FakeRegistry>,
        clock: Clock,
        policy: &TagPolicy,
        offline: bool,
    ) -> Self {
        let limits = Limits {
            connect_timeout: 5 * SECOND,
            header_timeout: 20 * SECOND,
            revalidate_timeout: 3 * SECOND,
            stall_timeout: 30 * SECOND,
            shutdown_grace: 30 * SECOND,
        };
        let remotes = ["docker.io", "ghcr.io"].map(|name| {
            let remote = Remote {
                registry: Arc::clone(&registry) as Arc<dyn Registry>,
                policy: policy.clone(),
            };
            (name.parse().unwrap(), remote)
        });
        let ctx = Arc::new(Context::new(
            Arc::clone(&records) as Arc<dyn Records>,
            remotes.into(),
            &limits,
            offline,
            clock.clone(),
            Arc::new(Metrics::default()),
            Tasks::new(),
        ));
        let manifests = Arc::new(Manifests::new(Arc::clone(&ctx)));
        Self {
            records,
            registry,
            clock,
            tags: Arc::new(Tags::new(Arc::clone(&ctx), Arc::clone(&manifests))),
            lists: Arc::new(Lists::new(Arc::clone(&ctx), Arc::clone(&manifests))),
            membership: Arc::new(Membership::new(Arc::clone(&ctx))),
            manifests,
            ctx,
        }
    }

    /// Waits until no task is left.
    pub(super) async fn settled(&self) {
        while !self.ctx.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// Stores what the image manifest `body` needs, with its proofs.
    pub(super) fn store_blobs_of(&self, place: &Place, name: &str) {
        for part in ["config", "layer"] {
            let bytes = format!("{name} {part}");
            let digest = Digest::sha256(bytes.as_bytes());
            self.records
                .blobs
                .lock()
                .insert(digest.clone(), Bytes::from(bytes));
            self.records.seed(&place.key(RefKind::Blob(digest)), b"");
        }
    }
}

/// Runs `future` as a request of its own.
#[expect(clippy::disallowed_methods, reason = "a client is nobody's task")]
pub(super) fn client<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

/// Lets every task that can run do so. On the current-thread runtime of tests each turn runs them all once.
pub(super) async fn turns() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// An upstream that does as it is told.
#[derive(Debug)]
pub(super) struct FakeRegistry {
    manifests: Mutex<HashMap<(RepoName, Reference), Manifest>>,
    pub(super) blobs: Mutex<HashSet<(RepoName, Digest)>>,
    pub(super) list: Mutex<Option<ListAnswer>>,
    /// What a method (`HEAD`, `GET`, `BLOB`, `LIST`) answers instead.
    errors: Mutex<HashMap<&'static str, Error>>,
    /// Whether `HEAD` answers with the whole manifest, as for upstreams that leave out the digest.
    pub(super) head_has_body: AtomicBool,
    asked: Mutex<Vec<String>>,
    gate: Mutex<Option<Arc<Semaphore>>>,
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self {
            manifests: Mutex::default(),
            blobs: Mutex::default(),
            list: Mutex::default(),
            errors: Mutex::default(),
            head_has_body: AtomicBool::new(false),
            asked: Mutex::default(),
            gate: Mutex::default(),
        }
    }
}

impl FakeRegistry {
    /// Publishes `body` under `tag` and its digest.
    pub(super) fn push(&self, place: &Place, tag: &str, body: &str) -> Digest {
        let digest = self.push_untagged(place, body);
        self.set(place, Reference::Tag(tag.parse().unwrap()), body, &digest);
        digest
    }

    pub(super) fn push_untagged(&self, place: &Place, body: &str) -> Digest {
        let digest = digest(body);
        self.set(place, Reference::Digest(digest.clone()), body, &digest);
        digest
    }

    /// Answers `reference` with `body`, said to be `digest`.
    pub(super) fn set(&self, place: &Place, reference: Reference, body: &str, digest: &Digest) {
        let manifest = Manifest {
            bytes: Bytes::from(body.to_owned()),
            media_type: media_type(body),
            digest: digest.clone(),
            etag: None,
        };
        let key = (place.repository.clone(), reference);
        self.manifests.lock().insert(key, manifest);
    }

    /// Forgets one reference.
    pub(super) fn remove(&self, place: &Place, reference: Reference) {
        let key = (place.repository.clone(), reference);
        self.manifests.lock().remove(&key);
    }

    pub(super) fn fail(&self, method: &'static str, error: &Error) {
        self.errors.lock().insert(method, error.clone());
    }

    pub(super) fn fail_all(&self, error: &Error) {
        for method in ["HEAD", "GET", "BLOB", "LIST"] {
            self.fail(method, error);
        }
    }

    pub(super) fn mend(&self) {
        self.errors.lock().clear();
    }

    /// Answers nothing until [`FakeRegistry::release`].
    pub(super) fn hold(&self) {
        *self.gate.lock() = Some(Arc::new(Semaphore::new(0)));
    }

    pub(super) fn release(&self) {
        if let Some(gate) = self.gate.lock().take() {
            gate.close();
        }
    }

    /// What was asked, in order, and forgets it.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }

    async fn ask(&self, method: &'static str, what: &str) -> Result<(), Error> {
        self.asked.lock().push(format!("{method} {what}"));
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            // Closed, not released: everyone goes on.
            let _ = gate.acquire().await;
        }
        self.errors
            .lock()
            .get(method)
            .map_or(Ok(()), |error| Err(error.clone()))
    }

    fn find(&self, repository: &RepoName, reference: &Reference) -> Result<Manifest, Error> {
        let key = (repository.clone(), reference.clone());
        self.manifests
            .lock()
            .get(&key)
            .cloned()
            .ok_or_else(not_found)
    }
}

impl Registry for FakeRegistry {
    fn head_manifest<'a>(
        &'a self,
        repository: &'a RepoName,
        reference: &'a Reference,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<ManifestHead, Error>> {
        Box::pin(async move {
            self.ask("HEAD", reference.as_str()).await?;
            let manifest = self.find(repository, reference)?;
            Ok(ManifestHead {
                digest: manifest.digest.clone(),
                len: manifest.bytes.len() as u64,
                media_type: manifest.media_type.clone(),
                etag: None,
                body: self
                    .head_has_body
                    .load(Ordering::Relaxed)
                    .then_some(manifest),
            })
        })
    }

    fn get_manifest<'a>(
        &'a self,
        repository: &'a RepoName,
        reference: &'a Reference,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<Manifest, Error>> {
        Box::pin(async move {
            self.ask("GET", reference.as_str()).await?;
            self.find(repository, reference)
        })
    }

    fn head_blob<'a>(
        &'a self,
        repository: &'a RepoName,
        digest: &'a Digest,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<BlobHead, Error>> {
        Box::pin(async move {
            self.ask("BLOB", digest.as_str()).await?;
            let key = (repository.clone(), digest.clone());
            if self.blobs.lock().contains(&key) {
                Ok(BlobHead { len: 9 })
            } else {
                Err(not_found())
            }
        })
    }

    fn tags<'a>(
        &'a self,
        _repository: &'a RepoName,
        query: &'a TagsQuery,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(async move {
            self.ask("LIST", &format!("tags {:?}", query.n)).await?;
            self.list.lock().clone().ok_or_else(not_found)
        })
    }

    fn referrers<'a>(
        &'a self,
        _repository: &'a RepoName,
        digest: &'a Digest,
        query: &'a str,
        _call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(async move {
            self.ask("LIST", &format!("{digest} {query}")).await?;
            self.list.lock().clone().ok_or_else(not_found)
        })
    }
}

/// A disk in memory.
#[derive(Debug, Default)]
pub(super) struct FakeRecords {
    refs: Mutex<HashMap<RefKey, Vec<u8>>>,
    pub(super) blobs: Mutex<HashMap<Digest, Bytes>>,
    /// What was written, in order: `blob`, `tag`, `manifest`, `proof`, `list`.
    written: Mutex<Vec<&'static str>>,
    /// Whether there is no room for blobs.
    pub(super) is_full: AtomicBool,
    gate: Mutex<Option<Arc<Semaphore>>>,
}

impl FakeRecords {
    pub(super) fn seed(&self, key: &RefKey, record: &[u8]) {
        self.refs.lock().insert(key.clone(), record.to_owned());
    }

    pub(super) fn stored(&self, key: &RefKey) -> Option<String> {
        let record = self.refs.lock().get(key).cloned();
        record.map(|record| String::from_utf8(record).unwrap())
    }

    /// Number of records and blobs.
    pub(super) fn len(&self) -> usize {
        self.refs.lock().len() + self.blobs.lock().len()
    }

    /// Number of records of one kind.
    pub(super) fn count(&self, kind: RefKindName) -> usize {
        let refs = self.refs.lock();
        refs.keys()
            .filter(|key| name(&key.kind).0 == Some(kind))
            .count()
    }

    /// Number of stored lists.
    pub(super) fn lists(&self) -> usize {
        let refs = self.refs.lock();
        refs.keys()
            .filter(|key| name(&key.kind).0.is_none())
            .count()
    }

    /// Writes nothing until [`FakeRecords::release`].
    pub(super) fn hold(&self) {
        *self.gate.lock() = Some(Arc::new(Semaphore::new(0)));
    }

    pub(super) fn release(&self) {
        if let Some(gate) = self.gate.lock().take() {
            gate.close();
        }
    }

    /// What was written, in order, and forgets it.
    pub(super) fn written(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.written.lock())
    }

    async fn write(&self, what: &'static str) -> io::Result<()> {
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            let _ = gate.acquire().await;
        }
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
        Box::pin(async move { Ok(self.refs.lock().get(key).cloned()) })
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
            let bytes = self.blobs.lock().get(digest).cloned();
            Ok(bytes.filter(|bytes| bytes.len() as u64 <= MAX_MANIFEST))
        })
    }

    fn blob_len<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<u64>>> {
        Box::pin(async move { Ok(self.blobs.lock().get(digest).map(|b| b.len() as u64)) })
    }

    fn put_blob<'a>(&'a self, bytes: Bytes, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.write("blob").await?;
            self.blobs.lock().insert(digest.clone(), bytes);
            Ok(())
        })
    }

    fn discard_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.blobs.lock().remove(digest);
            Ok(())
        })
    }
}

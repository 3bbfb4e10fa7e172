//! A scripted upstream.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, Reference, RepoName, TagsQuery};
use crate::upstream::{BlobHead, Call, Error, ListAnswer, Manifest, ManifestHead};

use super::super::Place;
use super::super::ports::Registry;
use super::{Gate, digest, media_type, not_found};

/// An upstream that does as it is told.
#[derive(Debug)]
pub(in crate::proxy) struct FakeRegistry {
    manifests: Mutex<HashMap<(RepoName, Reference), Manifest>>,
    pub(in crate::proxy) blobs: Mutex<HashSet<(RepoName, Digest)>>,
    pub(in crate::proxy) list: Mutex<Option<ListAnswer>>,
    /// What a method (`HEAD`, `GET`, `BLOB`, `LIST`) answers instead.
    errors: Mutex<HashMap<&'static str, Error>>,
    /// Whether `HEAD` answers with the whole manifest, as for upstreams that leave out the digest.
    pub(in crate::proxy) head_has_body: AtomicBool,
    asked: Mutex<Vec<String>>,
    gate: Gate,
    /// Nothing but this method waits at the gate.
    gated: Mutex<Option<&'static str>>,
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
            gate: Gate::default(),
            gated: Mutex::default(),
        }
    }
}

impl FakeRegistry {
    /// Publishes `body` under `tag` and its digest.
    pub(in crate::proxy) fn push(&self, place: &Place, tag: &str, body: &str) -> Digest {
        let digest = self.push_untagged(place, body);
        self.set(place, Reference::Tag(tag.parse().unwrap()), body, &digest);
        digest
    }

    pub(in crate::proxy) fn push_untagged(&self, place: &Place, body: &str) -> Digest {
        let digest = digest(body);
        self.set(place, Reference::Digest(digest.clone()), body, &digest);
        digest
    }

    /// Answers `reference` with `body`, said to be `digest`.
    pub(in crate::proxy) fn set(
        &self,
        place: &Place,
        reference: Reference,
        body: &str,
        digest: &Digest,
    ) {
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
    pub(in crate::proxy) fn remove(&self, place: &Place, reference: Reference) {
        let key = (place.repository.clone(), reference);
        self.manifests.lock().remove(&key);
    }

    pub(in crate::proxy) fn fail(&self, method: &'static str, error: &Error) {
        self.errors.lock().insert(method, error.clone());
    }

    pub(in crate::proxy) fn fail_all(&self, error: &Error) {
        for method in ["HEAD", "GET", "BLOB", "LIST"] {
            self.fail(method, error);
        }
    }

    pub(in crate::proxy) fn mend(&self) {
        self.errors.lock().clear();
    }

    /// Answers nothing until [`FakeRegistry::release`].
    pub(in crate::proxy) fn hold(&self) {
        self.gate.shut();
    }

    /// Does not answer `method` until [`FakeRegistry::release`].
    pub(in crate::proxy) fn hold_only(&self, method: &'static str) {
        *self.gated.lock() = Some(method);
        self.gate.shut();
    }

    pub(in crate::proxy) fn release(&self) {
        *self.gated.lock() = None;
        self.gate.open();
    }

    /// What was asked, in order, and forgets it.
    pub(in crate::proxy) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }

    async fn ask(&self, method: &'static str, what: &str) -> Result<(), Error> {
        self.asked.lock().push(format!("{method} {what}"));
        let waits = self.gated.lock().is_none_or(|gated| gated == method);
        if waits {
            self.gate.pass().await;
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

//! What the decisions about manifests, tags and lists need of an upstream and of the disk. The adapters implement
//! these for the real ones, the tests for scripted ones.

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::config::UpstreamName;
use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, Reference, RepoName, TagsQuery};
use crate::store::{RefKey, RefKindName};
use crate::upstream::{BlobHead, Call, Error, ListAnswer, Manifest, ManifestHead};

/// One upstream, as far as small answers go.
pub(super) trait Registry: Send + Sync + fmt::Debug + 'static {
    /// Asks for a manifest's digest, free of any quota.
    fn head_manifest<'a>(
        &'a self,
        repository: &'a RepoName,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ManifestHead, Error>>;

    /// Asks for a manifest. Its digest is computed from its bytes and is the asked one where it can be verified.
    fn get_manifest<'a>(
        &'a self,
        repository: &'a RepoName,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<Manifest, Error>>;

    /// Asks whether the repository has a blob.
    fn head_blob<'a>(
        &'a self,
        repository: &'a RepoName,
        digest: &'a Digest,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<BlobHead, Error>>;

    /// Asks for a page of the repository's tags.
    fn tags<'a>(
        &'a self,
        repository: &'a RepoName,
        query: &'a TagsQuery,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>>;

    /// Asks for a page of what refers to `digest`; `query` is passed on as it is.
    fn referrers<'a>(
        &'a self,
        repository: &'a RepoName,
        digest: &'a Digest,
        query: &'a str,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>>;
}

/// Small records by key: tags, manifests, proofs of membership, lists.
pub(super) trait Refs: Send + Sync + 'static {
    /// The record, if there is one.
    fn get<'a>(&'a self, key: &'a RefKey) -> BoxFuture<'a, io::Result<Option<Vec<u8>>>>;

    /// The first of these records that is there and can be read; an error where none is, and one cannot be read. As slow as
    /// one look.
    fn first<'a>(&'a self, keys: &'a [RefKey]) -> BoxFuture<'a, io::Result<Option<Vec<u8>>>>;

    /// Writes the record, whatever was there. It is durable on return.
    fn put<'a>(&'a self, key: &'a RefKey, record: Vec<u8>) -> BoxFuture<'a, io::Result<()>>;

    /// Writes the record if what is there equals `expected` (`None`: nothing is there); whether it did.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "every place for records can do it; no decision asks for it yet"
        )
    )]
    fn compare_and_put<'a>(
        &'a self,
        key: &'a RefKey,
        expected: Option<&'a [u8]>,
        record: Vec<u8>,
    ) -> BoxFuture<'a, io::Result<bool>>;

    /// Removes the record; none being there is no error.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "every place for records can do it; no decision asks for it yet"
        )
    )]
    fn remove<'a>(&'a self, key: &'a RefKey) -> BoxFuture<'a, io::Result<()>>;

    /// The keys of a repository's records of one kind, in no order.
    fn list<'a>(
        &'a self,
        upstream: &'a UpstreamName,
        repository: &'a RepoName,
        kind: RefKindName,
    ) -> BoxFuture<'a, io::Result<Vec<RefKey>>>;

    /// Every repository that has records, in no order.
    fn repositories(&self) -> BoxFuture<'_, io::Result<Vec<(UpstreamName, RepoName)>>>;
}

/// The disk: small records, and the bytes of manifests, which are blobs.
pub(super) trait Records: Refs {
    /// The bytes of a committed blob of at most [`MAX_MANIFEST`] bytes; `None` where there is none, or a larger one.
    fn read_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Bytes>>>;

    /// The length of a committed blob, if there is one. That is no use of it.
    fn blob_len<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<u64>>>;

    /// Commits bytes that were verified against `digest`. They are durable on return.
    fn put_blob<'a>(&'a self, bytes: Bytes, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>>;

    /// Throws a committed blob of `len` bytes away that has turned out wrong; not one of another length, which has taken its
    /// place.
    fn discard_blob<'a>(&'a self, digest: &'a Digest, len: u64) -> BoxFuture<'a, io::Result<()>>;
}

/// Most bytes of a manifest (distribution-spec, "Pushing manifests").
pub(super) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

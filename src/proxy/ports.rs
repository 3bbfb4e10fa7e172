//! What the decisions about manifests, tags and lists need of an upstream and of the disk. The adapters implement
//! these for the real ones, the tests for scripted ones.

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::flight::ports::{BoxFuture, Refs};
use crate::oci::{Digest, Reference, RepoName, TagsQuery};
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

/// The disk: small records, and the bytes of manifests, which are blobs.
pub(super) trait Records: Refs {
    /// The bytes of a committed blob of at most [`MAX_MANIFEST`] bytes; `None` where there is none, or a larger one.
    fn read_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Bytes>>>;

    /// The length of a committed blob, if there is one.
    fn blob_len<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<u64>>>;

    /// Commits bytes that were verified against `digest`. They are durable on return.
    fn put_blob<'a>(&'a self, bytes: Bytes, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>>;

    /// Throws a committed blob away whose bytes have turned out wrong.
    fn discard_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<()>>;
}

/// Most bytes of a manifest (distribution-spec, "Pushing manifests").
pub(super) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

//! What the server wants of the proxy: the seam that its tests put a fake in.

use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, Reference, TagsQuery, Target};
use crate::proxy::{
    BlobAnswer, BlobUse, CatalogPage, Error, ListAnswer, ManifestAnswer, Place, Proxy, SelectError,
    Selected,
};
use crate::upstream::Call;

/// Content of registries, cached or fetched. Every call ends before its deadline.
pub trait Content: Send + Sync + 'static {
    /// The place that a request is for. `host` is its `Host`.
    fn select(&self, target: &Target, host: Option<&str>) -> Result<Selected, SelectError>;

    /// A manifest, whole; [`Content::sends`] is told if it goes to the client.
    fn manifest<'a>(
        &'a self,
        place: &'a Place,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ManifestAnswer, Error>>;

    /// Notes that a manifest goes to the client, rather than only its headers.
    fn sends(&self, manifest: &ManifestAnswer);

    /// A blob, to be read.
    fn blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        usage: BlobUse,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<BlobAnswer, Error>>;

    /// A page of a repository's tags.
    fn tags<'a>(
        &'a self,
        place: &'a Place,
        query: &'a TagsQuery,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>>;

    /// What refers to `digest`; `query` is the request's, canonical and without `ns`.
    fn referrers<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        artifact_types: &'a [String],
        query: &'a str,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>>;

    /// A page of the repositories in the cache.
    fn catalog<'a>(
        &'a self,
        n: Option<u32>,
        last: Option<&'a str>,
    ) -> BoxFuture<'a, Result<CatalogPage, Error>>;
}

impl Content for Proxy {
    fn select(&self, target: &Target, host: Option<&str>) -> Result<Selected, SelectError> {
        Self::select(self, target, host)
    }

    fn manifest<'a>(
        &'a self,
        place: &'a Place,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ManifestAnswer, Error>> {
        Box::pin(Self::manifest(self, place, reference, call))
    }

    fn sends(&self, manifest: &ManifestAnswer) {
        Self::sends(self, manifest);
    }

    fn blob<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        usage: BlobUse,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<BlobAnswer, Error>> {
        Box::pin(Self::blob(self, place, digest, usage, call))
    }

    fn tags<'a>(
        &'a self,
        place: &'a Place,
        query: &'a TagsQuery,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(Self::tags(self, place, query, call))
    }

    fn referrers<'a>(
        &'a self,
        place: &'a Place,
        digest: &'a Digest,
        artifact_types: &'a [String],
        query: &'a str,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(Self::referrers(
            self,
            place,
            digest,
            artifact_types,
            query,
            call,
        ))
    }

    fn catalog<'a>(
        &'a self,
        n: Option<u32>,
        last: Option<&'a str>,
    ) -> BoxFuture<'a, Result<CatalogPage, Error>> {
        Box::pin(Self::catalog(self, n, last))
    }
}

//! One upstream, as far as small answers go.

use crate::flight::ports::BoxFuture;
use crate::oci::{Digest, Reference, RepoName, TagsQuery};
use crate::proxy::ports::Registry;
use crate::upstream::{BlobHead, Call, Error, ListAnswer, Manifest, ManifestHead, Upstream};

impl Registry for Upstream {
    fn head_manifest<'a>(
        &'a self,
        repository: &'a RepoName,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ManifestHead, Error>> {
        Box::pin(Self::head_manifest(self, repository, reference, call))
    }

    fn get_manifest<'a>(
        &'a self,
        repository: &'a RepoName,
        reference: &'a Reference,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<Manifest, Error>> {
        Box::pin(Self::get_manifest(self, repository, reference, call))
    }

    fn head_blob<'a>(
        &'a self,
        repository: &'a RepoName,
        digest: &'a Digest,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<BlobHead, Error>> {
        Box::pin(Self::head_blob(self, repository, digest, call))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a RepoName,
        query: &'a TagsQuery,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(Self::tags(self, repository, query, call))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a RepoName,
        digest: &'a Digest,
        query: &'a str,
        call: &'a Call,
    ) -> BoxFuture<'a, Result<ListAnswer, Error>> {
        Box::pin(Self::referrers(self, repository, digest, query, call))
    }
}

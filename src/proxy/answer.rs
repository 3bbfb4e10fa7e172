//! What the server gets to send.

use bytes::Bytes;

use super::CacheOutcome;
use crate::oci::{Digest, MediaType, RangeSpec};

/// A manifest, byte for byte.
#[derive(Debug, Clone)]
pub struct ManifestAnswer {
    /// The bytes as the upstream sent them.
    pub bytes: Bytes,
    /// Their type.
    pub media_type: MediaType,
    /// Their digest; the requested one where a digest was asked for.
    pub digest: Digest,
    /// What the cache did.
    pub outcome: CacheOutcome,
    /// Text for a `Warning: 299` header.
    pub warning: Option<String>,
}

/// A page of tags or referrers.
#[derive(Debug, Clone)]
pub struct ListAnswer {
    /// JSON.
    pub body: Bytes,
    /// Its type.
    pub media_type: MediaType,
    /// Query of the next page, without `ns`.
    pub next: Option<String>,
    /// Value of `OCI-Filters-Applied`.
    pub filters_applied: Option<String>,
    /// What the cache did.
    pub outcome: CacheOutcome,
    /// Text for a `Warning: 299` header.
    pub warning: Option<String>,
}

/// A page of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogPage {
    /// Repositories as clients name them, sorted.
    pub repositories: Vec<String>,
    /// Whether more follow the last one.
    pub more: bool,
}

/// What a blob is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobUse {
    /// Its size only.
    Head,
    /// All of it.
    Full,
    /// Parts of it.
    Ranged(RangeSpec),
}

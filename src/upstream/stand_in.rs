//! Stand-in until the uphttp branch lands.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "dropped at rebase"
)]
use crate::oci::{Digest, MediaType};
use bytes::Bytes;

#[derive(Debug, Clone)]
pub struct Call {
    pub deadline: tokio::time::Instant,
    pub via: Option<http::HeaderValue>,
}
#[derive(Debug, Clone)]
pub struct Manifest {
    pub bytes: Bytes,
    pub media_type: MediaType,
    pub digest: Digest,
    pub etag: Option<String>,
}
#[derive(Debug, Clone)]
pub struct ManifestHead {
    pub digest: Digest,
    pub len: u64,
    pub media_type: MediaType,
    pub etag: Option<String>,
    pub body: Option<Manifest>,
}
#[derive(Debug, Clone, Copy)]
pub struct BlobHead {
    pub len: u64,
}
#[derive(Debug, Clone)]
pub struct ListAnswer {
    pub body: Bytes,
    pub media_type: MediaType,
    pub next: Option<String>,
    pub filters_applied: Option<String>,
}

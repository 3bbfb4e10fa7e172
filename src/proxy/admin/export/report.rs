//! What an export is asked for, and what it says it will hold.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// Which images, and what the other side has of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportRequest {
    /// Names, or patterns.
    pub images: Vec<String>,
    /// All that are in the cache.
    pub all: bool,
    /// All that are pinned.
    pub pinned: bool,
    /// Blobs that are left out.
    pub without: Vec<Digest>,
    /// Earlier exports that hold blobs which are left out: the digests of their `index.json`.
    pub bases: Vec<Digest>,
    /// What the plan gave as `index`; where that would be another by now, nothing is exported.
    pub index: Option<Digest>,
}

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPlan {
    /// Digest of its `index.json`, which names it.
    pub index: Digest,
    /// Its images.
    pub images: Vec<ExportedImage>,
    /// Images that a pattern, `all` or `pinned` meant as well, but that are not here whole for any platform.
    pub passed_over: Vec<PassedOverImage>,
    /// Number of blobs in it, manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of blobs that are left out.
    pub left_out_blobs: u64,
    /// Their bytes.
    pub left_out_bytes: u64,
    /// Bytes of the tar.
    pub archive_bytes: u64,
}

/// An image of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedImage {
    /// Its name.
    pub image: String,
    /// Digest of its manifest or index.
    pub digest: String,
    /// What it runs on, as far as that is here whole.
    pub platforms: Vec<String>,
    /// What its index lists besides, and the export does not hold.
    pub absent: Vec<String>,
}

/// An image that is not exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOverImage {
    /// Its name.
    pub image: String,
    /// What is missing.
    pub why: String,
}

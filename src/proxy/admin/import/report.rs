//! What an import is asked for, and what it tells.

use serde::{Deserialize, Serialize};

/// How images are taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// The name of the only image, where the archive has none for it.
    pub name: Option<String>,
    /// Whether the images are pinned.
    pub pin: bool,
}

/// What an import tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ImportEvent {
    /// How far it has come.
    Progress {
        /// Blobs taken in, and those that were here.
        blobs: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// It was refused, or broke off. Nothing was imported.
    Failed {
        /// Why.
        message: String,
    },
    /// It is through.
    Done(ImportReport),
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImportReport {
    /// The images.
    pub images: Vec<ImportedImage>,
    /// Number of blobs that are new here, manifests included.
    pub new_blobs: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Number of blobs that were here.
    pub present_blobs: u64,
    /// Their bytes.
    pub present_bytes: u64,
    /// Whether the images are pinned now.
    pub pinned: bool,
}

/// An image that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedImage {
    /// Its name.
    pub image: String,
    /// Digest of its manifest or index.
    pub digest: String,
    /// Where its tag pointed before, if that was elsewhere.
    pub replaced: Option<String>,
}

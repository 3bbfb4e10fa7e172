//! What administration answers, as JSON: the same from a running server and from a data directory at rest.
//!
//! Names of fields and of variants are what scripts depend on; `docs/openapi.json` describes them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use super::export::report::{ExportPlan, ExportRequest, ExportedImage, PassedOverImage};
pub use super::import::report::{ImportEvent, ImportReport, ImportRequest, ImportedImage};

/// An image in the cache: a tag, or a manifest that no tag and no index leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Its name: `docker.io/library/alpine:3.20`, or with `@sha256:…` where no tag leads to it.
    pub image: String,
    /// Key of its upstream.
    pub upstream: String,
    /// Its repository there.
    pub repository: String,
    /// Its tag.
    pub tag: Option<String>,
    /// Digest of its manifest or index.
    pub digest: String,
    /// What it runs on.
    pub platforms: Vec<PlatformState>,
    /// Bytes of what is stored of it.
    pub size_bytes: u64,
    /// Of these, bytes that other images lead to as well: those that would stay if it were removed.
    pub shared_bytes: u64,
    /// When its manifests were last used.
    pub last_used: Option<Timestamp>,
    /// Whether it is never evicted.
    pub pinned: bool,
    /// How sure it is that the tag still points there.
    pub freshness: FreshnessState,
    /// When the upstream last said so.
    pub validated: Option<Timestamp>,
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformState {
    /// `linux/arm64/v8`.
    pub platform: String,
    /// Whether all that it needs is here, so that it could be pulled with the upstream down.
    pub complete: bool,
}

/// Whether an upstream is asked about a tag at its next use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreshnessState {
    /// It is served without asking.
    Fresh,
    /// It is served, and asked about afterwards.
    Behind,
    /// It is asked about first.
    Old,
    /// A digest never changes.
    Fixed,
}

/// A part of the list of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePage {
    /// In order of upstream, repository (component by component) and tag, untagged ones behind those with tags.
    pub images: Vec<ImageSummary>,
    /// What to pass as `last` for the next part; `None`: this was the end.
    pub next: Option<String>,
}

/// All about one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDetail {
    /// What the list says of it.
    #[serde(flatten)]
    pub summary: ImageSummary,
    /// The digest that is served should the upstream fail before `digest` is here whole.
    pub previous: Option<String>,
    /// Its manifests, the one that the name stands for first.
    pub manifests: Vec<ManifestDetail>,
}

/// A manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDetail {
    /// Its digest.
    pub digest: String,
    /// Its type, where it is known.
    pub media_type: Option<String>,
    /// What it runs on; `None` for an index.
    pub platform: Option<String>,
    /// Its bytes, as whoever names it says.
    pub size_bytes: u64,
    /// Whether it is here.
    pub state: Presence,
    /// Whether other images lead to it too.
    pub shared: bool,
    /// The blobs that it names; unknown, hence none, while it is missing.
    pub blobs: Vec<BlobDetail>,
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobDetail {
    /// Its digest.
    pub digest: String,
    /// Its type as the manifest says it.
    pub media_type: Option<String>,
    /// Its bytes as the manifest says them.
    pub size_bytes: u64,
    /// Whether it is here.
    pub state: Presence,
    /// Whether other images lead to it too.
    pub shared: bool,
}

/// Whether content is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is, and known to belong to the repository.
    Present,
    /// It is, from another repository; the upstream has yet to say that this one has it too.
    Unproven,
    /// It is not.
    Missing,
    /// It is not the registry's to have.
    External,
}

/// What the cache holds and what it was good for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Bytes of stored blobs, manifests included.
    pub size_bytes: u64,
    /// Number of stored blobs, manifests included.
    pub blobs: u64,
    /// Whether the count after a start is still under way, so that sizes and numbers of blobs are too low.
    pub counting: bool,
    /// `max_size` of the configuration.
    pub max_size_bytes: Option<u64>,
    /// Since when requests and bytes are counted. They outlive restarts; a crash loses a minute of them at most.
    pub since: Option<Timestamp>,
    /// All upstreams together. What several have in common counts once here, and with each of them below.
    pub total: UpstreamStatistics,
    /// Each upstream that is known or has something stored, by its key.
    pub upstreams: Vec<UpstreamStatistics>,
}

/// Statistics of one upstream, or of all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct UpstreamStatistics {
    /// Its key; empty for all.
    pub upstream: String,
    /// Number of repositories that something is stored of.
    pub repositories: u64,
    /// Number of tags.
    pub tags: u64,
    /// Number of stored blobs that are known to belong to it.
    pub blobs: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Requests for its content.
    pub requests: u64,
    /// Of these, those answered from what was stored.
    pub hits: u64,
    /// `hits / requests`.
    pub request_hit_ratio: Option<f64>,
    /// Body bytes sent to clients.
    pub served_bytes: u64,
    /// Of these, those that came from what was stored.
    pub hit_bytes: u64,
    /// `hit_bytes / served_bytes`.
    pub byte_hit_ratio: Option<f64>,
    /// Body bytes received from the upstream.
    pub upstream_bytes: u64,
    /// Bytes that clients got and the upstream did not have to send.
    pub saved_bytes: u64,
}

/// What a removal removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Removal {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Names of the images.
    pub images: Vec<String>,
    /// Names of images that were meant as well, but are pinned.
    pub pinned: Vec<String>,
    /// Number of blobs removed, manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Number of their blobs that stay, since other images lead to them or they are in use.
    pub kept_blobs: u64,
    /// Bytes of these.
    pub kept_bytes: u64,
}

/// What was evicted, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Collected {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Number of blobs evicted, manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Number of blobs that are left.
    pub left_blobs: u64,
    /// Their bytes.
    pub left_bytes: u64,
    /// Whether no more is left than was wanted; else the rest is pinned or in use.
    pub reached: bool,
}

/// The pins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PinList {
    /// Those of the configuration, which only it can change.
    pub config: Vec<String>,
    /// Those made by command.
    pub command: Vec<String>,
}

/// What came of a pin or of taking one away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinChange {
    /// The pin, as it is kept.
    pub pin: String,
    /// Whether this changed anything.
    pub changed: bool,
}

/// The tags about which upstreams are asked at their next use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refreshed {
    /// Names of the images.
    pub images: Vec<String>,
}

/// What a verification tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyEvent {
    /// How far it has come.
    Progress {
        /// Blobs read.
        blobs: u64,
        /// Their bytes.
        bytes: u64,
        /// Blobs to be read, as far as they have been counted.
        of_blobs: u64,
    },
    /// Something is not as it should be.
    Found(Finding),
    /// It broke off.
    Failed {
        /// Why.
        message: String,
    },
    /// It is through.
    Done(VerifyReport),
}

/// Something that is not as it should be, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// Where: a path, or the name of an image.
    pub place: String,
    /// The blob.
    pub digest: Option<String>,
    /// What was seen.
    pub found: String,
    /// What was done, and what happens next.
    pub done: String,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A blob's bytes do not match its digest.
    Damaged,
    /// The same, and a manifest knows it longer.
    Truncated,
    /// A blob has no bytes left.
    Emptied,
    /// A file or a directory cannot be read.
    Unreadable,
    /// A record cannot be understood.
    Record,
    /// An image lacks a part that it once had: evicted, or removed by hand.
    Missing,
    /// Not put there by Layby.
    Foreign,
}

impl FindingKind {
    /// Whether content was lost that should have been there.
    pub fn is_damage(self) -> bool {
        !matches!(self, Self::Missing | Self::Foreign)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Truncated => "truncated",
            Self::Emptied => "emptied",
            Self::Unreadable => "unreadable",
            Self::Record => "record",
            Self::Missing => "missing",
            Self::Foreign => "foreign",
        }
    }
}

/// The sum of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that match their digest.
    pub sound: u64,
    /// Findings of each kind.
    pub damaged: u64,
    /// See [`FindingKind::Truncated`].
    pub truncated: u64,
    /// See [`FindingKind::Emptied`].
    pub emptied: u64,
    /// See [`FindingKind::Unreadable`].
    pub unreadable: u64,
    /// See [`FindingKind::Record`].
    pub records: u64,
    /// See [`FindingKind::Missing`].
    pub missing: u64,
    /// See [`FindingKind::Foreign`].
    pub foreign: u64,
}

impl VerifyReport {
    /// Counts a finding.
    pub fn count(&mut self, kind: FindingKind) {
        let count = match kind {
            FindingKind::Damaged => &mut self.damaged,
            FindingKind::Truncated => &mut self.truncated,
            FindingKind::Emptied => &mut self.emptied,
            FindingKind::Unreadable => &mut self.unreadable,
            FindingKind::Record => &mut self.records,
            FindingKind::Missing => &mut self.missing,
            FindingKind::Foreign => &mut self.foreign,
        };
        *count = count.saturating_add(1);
    }

    /// Whether nothing that should have been there was lost.
    pub fn is_whole(&self) -> bool {
        self.damaged == 0
            && self.truncated == 0
            && self.emptied == 0
            && self.unreadable == 0
            && self.records == 0
    }
}

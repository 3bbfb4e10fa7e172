//! What is to be said of an image: its platforms, sizes, last use, and the state of its parts.
//!
//! Reads the disk and notes no use. Blocks.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use crate::config::{Config, TagPolicy, TagRules, Upstream, UpstreamName};
use crate::oci::{Descriptor, Digest, ManifestInfo, ManifestKind, Platform};
use crate::proxy::Place;
use crate::proxy::freshness::Freshness;
use crate::proxy::manifests::EMPTY;
use crate::proxy::tags::Terms;
use crate::store::Store;

use super::digests::{DigestSet, Sharing};
use super::model::{
    BlobDetail, FreshnessState, ImageDetail, ImageSummary, ManifestDetail, PlatformState, Presence,
};
use super::pins::Pins;
use super::walk::{self, Image, Node};

/// What descriptions stand on.
pub(super) struct Describer<'a> {
    pub(super) store: &'a Store,
    pub(super) pins: &'a Pins,
    pub(super) policies: &'a Policies,
    pub(super) sharing: &'a Sharing,
    pub(super) now: Timestamp,
}

/// How long tags hold, as the configuration says it.
#[derive(Debug)]
pub(super) struct Policies {
    upstreams: HashMap<UpstreamName, TagPolicy>,
    rules: Arc<TagRules>,
}

/// Sums over the parts of one image.
#[derive(Default)]
struct Sums {
    seen: DigestSet,
    size: u64,
    shared: u64,
    used: Option<Timestamp>,
    platforms: Vec<PlatformState>,
}

impl Policies {
    pub(super) fn of(config: &Config) -> Self {
        let policy = |one: &Arc<Upstream>| (one.name.clone(), one.tags.clone());
        Self {
            upstreams: config.upstreams.iter().map(policy).collect(),
            rules: Arc::clone(&config.tag_rules),
        }
    }

    fn freshness(&self, image: &Image, now: Timestamp) -> FreshnessState {
        let Some((tag, record)) = &image.tag else {
            return FreshnessState::Fixed;
        };
        let Some(policy) = self.upstreams.get(&image.place.upstream) else {
            return FreshnessState::Old;
        };
        let terms = Terms::of(policy, &self.rules, &image.place, tag);
        match record.judged(&terms.policy, now) {
            Freshness::Fresh => FreshnessState::Fresh,
            Freshness::Behind => FreshnessState::Behind,
            Freshness::Old => FreshnessState::Old,
        }
    }
}

impl Describer<'_> {
    /// The line of the list.
    pub(super) fn summary(&self, image: &Image) -> io::Result<ImageSummary> {
        self.detail(image).map(|detail| detail.summary)
    }

    /// All about it.
    pub(super) fn detail(&self, image: &Image) -> io::Result<ImageDetail> {
        let mut sums = Sums::default();
        let mut manifests = Vec::new();
        let media_type = image.tag.as_ref().map(|(_, record)| &record.media_type);
        walk::each_manifest(self.store, &image.digest, media_type, &mut |node| {
            manifests.push(self.manifest(&image.place, &node, &mut sums)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let record = image.tag.as_ref().map(|(_, record)| record);
        let tag = image.tag.as_ref().map(|(tag, _)| tag);
        Ok(ImageDetail {
            summary: ImageSummary {
                image: image.name().to_string(),
                upstream: image.place.upstream.to_string(),
                repository: image.place.repository.to_string(),
                tag: tag.map(ToString::to_string),
                digest: image.digest.to_string(),
                platforms: sums.platforms,
                size_bytes: sums.size,
                shared_bytes: sums.shared,
                last_used: sums.used,
                pinned: self.pins.are_for(&image.place, tag, &image.digest),
                freshness: self.policies.freshness(image, self.now),
                validated: record.map(|record| record.validated),
            },
            previous: image.previous().map(ToString::to_string),
            manifests,
        })
    }

    fn manifest(&self, place: &Place, node: &Node, sums: &mut Sums) -> io::Result<ManifestDetail> {
        let state = self.part(place, &node.digest, sums)?;
        if let Some(look) = self.store.look_at_blob(&node.digest)? {
            sums.used = sums.used.max(Timestamp::try_from(look.used).ok());
        }
        let mut blobs = Vec::new();
        let mut is_complete = state == Presence::Present;
        for blob in node.info.iter().flat_map(ManifestInfo::blobs) {
            let blob = self.blob(place, blob, sums)?;
            is_complete &= matches!(blob.state, Presence::Present | Presence::External);
            blobs.push(blob);
        }
        let platform = self.platform(node)?;
        let info = node.info.as_ref();
        let is_index = info.is_some_and(|info| matches!(info.kind, ManifestKind::Index { .. }));
        if let Some(platform) = &platform
            && !platform.starts_with("unknown")
        {
            sums.platforms.push(PlatformState {
                platform: platform.clone(),
                complete: is_complete,
            });
        }
        let own_type = info.map(|info| info.media_type.to_string());
        Ok(ManifestDetail {
            digest: node.digest.to_string(),
            media_type: own_type.or_else(|| node.media_type.clone()),
            platform: platform.filter(|_| !is_index),
            size_bytes: node.size,
            state,
            shared: self.sharing.is_shared(&node.digest),
            blobs,
        })
    }

    fn blob(&self, place: &Place, blob: &Descriptor, sums: &mut Sums) -> io::Result<BlobDetail> {
        let mut state = self.part(place, &blob.digest, sums)?;
        // The empty JSON object is known to clients, and layers with their own URLs are not the registry's to have.
        let is_external = blob.digest.as_str() == EMPTY || !blob.urls.is_empty();
        if state == Presence::Missing && is_external {
            state = Presence::External;
        }
        Ok(BlobDetail {
            digest: blob.digest.to_string(),
            media_type: blob.media_type.clone(),
            size_bytes: blob.size,
            state,
            shared: self.sharing.is_shared(&blob.digest),
        })
    }

    /// Whether a part is here; adds it up once.
    fn part(&self, place: &Place, digest: &Digest, sums: &mut Sums) -> io::Result<Presence> {
        let Some(look) = self.store.look_at_blob(digest)? else {
            return Ok(Presence::Missing);
        };
        if !walk::is_proven(self.store, place, digest)? {
            return Ok(Presence::Unproven);
        }
        if sums.seen.insert(digest) {
            sums.size = sums.size.saturating_add(look.len);
            if self.sharing.is_shared(digest) {
                sums.shared = sums.shared.saturating_add(look.len);
            }
        }
        Ok(Presence::Present)
    }

    /// What a manifest runs on: as its index says, else as its configuration does; `None` for an index.
    fn platform(&self, node: &Node) -> io::Result<Option<String>> {
        if let Some(platform) = &node.platform {
            return Ok(Some(written(platform)));
        }
        let kind = node.info.as_ref().map(|info| &info.kind);
        let Some(ManifestKind::Image { config, .. }) = kind else {
            return Ok(None);
        };
        let config = self.store.peek_blob(&config.digest, MOST_CONFIG)?;
        let platform = config.and_then(|config| serde_json::from_slice::<OfConfig>(&config).ok());
        Ok(platform.map(|of| {
            written(&Platform {
                architecture: of.architecture,
                os: of.os,
                os_version: None,
                os_features: Vec::new(),
                variant: of.variant,
            })
        }))
    }
}

/// The part of an image's configuration that is read (image-spec, config.md).
#[derive(Deserialize)]
struct OfConfig {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

/// `linux/arm64/v8`, as docker writes it.
pub(super) fn written(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = &platform.variant {
        text = format!("{text}/{variant}");
    }
    text
}

/// Most bytes of a configuration that is read for its platform.
const MOST_CONFIG: u64 = 1024 * 1024;

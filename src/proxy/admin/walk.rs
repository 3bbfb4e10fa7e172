//! Through the images of the cache in order, a repository in memory at a time, and through the parts of one.
//!
//! Reads records and manifests, and notes no use of either. Blocks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ops::ControlFlow;

use crate::oci::{Descriptor, Digest, ManifestInfo, MediaType, Platform, Reference, Tag};
use crate::proxy::Place;
use crate::proxy::ports::MAX_MANIFEST;
use crate::proxy::tags::TagRecord;
use crate::store::{RefKey, RefKind, RefKindName, Store};

use super::names::ImageName;

/// An image that is there.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) place: Place,
    /// The tag that leads to it, with its record; `None` where none does.
    pub(super) tag: Option<(Tag, TagRecord)>,
    pub(super) digest: Digest,
}

/// A manifest of an image.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) digest: Digest,
    /// Its length, as whoever names it says; of the image itself, as it is.
    pub(super) size: u64,
    /// What the index that lists it says it runs on.
    pub(super) platform: Option<Platform>,
    /// Its type as whoever names it says.
    pub(super) media_type: Option<String>,
    /// What it says; `None` where it is not here, or cannot be read.
    pub(super) info: Option<ManifestInfo>,
}

/// Whether a visit goes on.
pub(super) type Step = io::Result<ControlFlow<()>>;

/// Indexes within indexes that are followed.
const DEPTH: u32 = 4;

impl Image {
    pub(super) fn name(&self) -> ImageName {
        let reference = match &self.tag {
            Some((tag, _)) => Reference::Tag(tag.clone()),
            None => Reference::Digest(self.digest.clone()),
        };
        ImageName {
            place: self.place.clone(),
            reference,
        }
    }

    /// The digest that is served should the upstream fail before `digest` is whole.
    pub(super) fn previous(&self) -> Option<&Digest> {
        self.tag
            .as_ref()
            .and_then(|(_, record)| record.previous.as_ref())
    }

    /// Visits every manifest and then every blob that the image leads to, those of its previous state too; some twice.
    pub(super) fn each_part(
        &self,
        store: &Store,
        visit: &mut dyn FnMut(&Digest),
    ) -> io::Result<()> {
        for top in std::iter::once(&self.digest).chain(self.previous()) {
            each_manifest(store, top, None, &mut |node| {
                visit(&node.digest);
                for blob in node.info.iter().flat_map(ManifestInfo::blobs) {
                    visit(&blob.digest);
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(())
    }
}

/// Visits every image behind `after`, in order, until `visit` breaks off.
pub(super) fn each_image(
    store: &Store,
    after: Option<&ImageName>,
    visit: &mut dyn FnMut(Image) -> Step,
) -> io::Result<()> {
    let from = after.map(|name| (&name.place.upstream, &name.place.repository));
    let mut in_repository = |upstream, repository| {
        let place = Place {
            upstream,
            repository,
        };
        let after = after.filter(|name| name.place == place);
        each_image_of(store, &place, after.map(|name| &name.reference), visit)
    };
    store.each_repository(from, &mut in_repository, &mut |_| {})
}

/// Visits every image of a repository behind `after`, those with tags first.
pub(super) fn each_image_of(
    store: &Store,
    place: &Place,
    after: Option<&Reference>,
    visit: &mut dyn FnMut(Image) -> Step,
) -> Step {
    let after_tag = match after {
        Some(Reference::Tag(tag)) => Some(tag),
        _ => None,
    };
    let after_digest = match after {
        Some(Reference::Digest(digest)) => Some(digest),
        _ => None,
    };
    // What tags lead to, of those that are read anyway.
    let mut led = Led::new();
    if after_digest.is_none() {
        for tag in tags(store, place)? {
            if after_tag.is_some_and(|after| tag <= *after) {
                continue;
            }
            let Some(record) = tag_record(store, place, &tag)? else {
                continue;
            };
            note(&mut led, &record);
            let image = Image {
                place: place.clone(),
                digest: record.digest.clone(),
                tag: Some((tag, record)),
            };
            if visit(image)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    if after.is_some() {
        led = led_by_tags(store, place)?;
    }
    for digest in untagged(store, place, &led)? {
        if after_digest.is_some_and(|after| digest <= *after) {
            continue;
        }
        let image = Image {
            place: place.clone(),
            tag: None,
            digest,
        };
        if visit(image)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Visits the manifests of an image, whether they are here or not, each once, `top` first.
pub(super) fn each_manifest(
    store: &Store,
    top: &Digest,
    media_type: Option<&MediaType>,
    visit: &mut dyn FnMut(Node) -> Step,
) -> io::Result<()> {
    let mut seen = HashSet::from([top.clone()]);
    let bytes = store.peek_blob(top, MAX_MANIFEST)?;
    let first = Node {
        digest: top.clone(),
        size: bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
        platform: None,
        media_type: media_type.map(ToString::to_string),
        info: bytes.and_then(|bytes| ManifestInfo::parse(media_type, &bytes).ok()),
    };
    let mut waiting = VecDeque::from([(first, DEPTH)]);
    while let Some((node, depth)) = waiting.pop_front() {
        let children = node
            .info
            .as_ref()
            .map(ManifestInfo::manifests)
            .unwrap_or_default();
        for child in children.iter().filter(|_| depth > 0) {
            if seen.insert(child.digest.clone()) {
                waiting.push_back((listed(store, child)?, depth - 1));
            }
        }
        if visit(node)?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// A manifest as an index lists it.
fn listed(store: &Store, child: &Descriptor) -> io::Result<Node> {
    let bytes = store.peek_blob(&child.digest, MAX_MANIFEST)?;
    let media_type = child.media_type.as_deref().and_then(MediaType::parse);
    Ok(Node {
        digest: child.digest.clone(),
        size: child.size,
        platform: child.platform.clone(),
        media_type: child.media_type.clone(),
        info: bytes.and_then(|bytes| ManifestInfo::parse(media_type.as_ref(), &bytes).ok()),
    })
}

/// The tags of a repository, in order.
pub(super) fn tags(store: &Store, place: &Place) -> io::Result<Vec<Tag>> {
    let keys = store.list_refs(&place.upstream, &place.repository, RefKindName::Tag)?;
    let mut tags: Vec<Tag> = keys
        .into_iter()
        .filter_map(|key| match key.kind {
            RefKind::Tag(tag) => Some(tag),
            _ => None,
        })
        .collect();
    tags.sort_unstable();
    Ok(tags)
}

/// The manifests that a repository is known to have, in order.
pub(super) fn manifests(store: &Store, place: &Place) -> io::Result<Vec<Digest>> {
    let keys = store.list_refs(&place.upstream, &place.repository, RefKindName::Manifest)?;
    let mut digests: Vec<Digest> = keys
        .into_iter()
        .filter_map(|key| match key.kind {
            RefKind::Manifest(digest) => Some(digest),
            _ => None,
        })
        .collect();
    digests.sort_unstable();
    Ok(digests)
}

/// What is known of a tag. A record that cannot be understood is none: verification reports it.
pub(super) fn tag_record(store: &Store, place: &Place, tag: &Tag) -> io::Result<Option<TagRecord>> {
    let record = store.get_ref(&place.key(RefKind::Tag(tag.clone())))?;
    Ok(record.and_then(|record| serde_json::from_slice(&record).ok()))
}

/// Whether the repository is known to have a blob or a manifest.
pub(super) fn is_proven(store: &Store, place: &Place, digest: &Digest) -> io::Result<bool> {
    let kinds = [
        RefKind::Blob(digest.clone()),
        RefKind::Manifest(digest.clone()),
    ];
    for kind in kinds {
        let key: RefKey = place.key(kind);
        if store.has_ref(&key)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What tags lead to, and whether it may list other manifests.
type Led = HashMap<Digest, bool>;

fn note(led: &mut Led, record: &TagRecord) {
    let may_list = record.media_type.is_index();
    led.insert(record.digest.clone(), may_list);
    if let Some(previous) = &record.previous {
        // Its type is not on record.
        led.insert(previous.clone(), true);
    }
}

fn led_by_tags(store: &Store, place: &Place) -> io::Result<Led> {
    let mut led = Led::new();
    for tag in tags(store, place)? {
        if let Some(record) = tag_record(store, place, &tag)? {
            note(&mut led, &record);
        }
    }
    Ok(led)
}

/// The manifests of a repository that are here and that neither a tag nor an index leads to, in order.
fn untagged(store: &Store, place: &Place, led: &Led) -> io::Result<Vec<Digest>> {
    let all = manifests(store, place)?;
    let mut listed = HashSet::new();
    let mut here = Vec::new();
    for digest in all {
        // Most manifests are a tag's own, and need not be read.
        if led.get(&digest) == Some(&false) {
            continue;
        }
        let Some(bytes) = store.peek_blob(&digest, MAX_MANIFEST)? else {
            continue;
        };
        if let Ok(info) = ManifestInfo::parse(None, &bytes) {
            listed.extend(info.manifests().iter().map(|child| child.digest.clone()));
        }
        here.push(digest);
    }
    here.retain(|digest| !led.contains_key(digest) && !listed.contains(digest));
    Ok(here)
}

//! Removing images: their tags, the records of what only they led to, and the blobs that no other image leads to.
//!
//! Two walks: the first learns what all other images lead to, the second removes what is left. Whatever is interrupted
//! leaves records that name what is gone, which is a miss, and blobs that nothing leads to, which eviction finds.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::oci::{Digest, Reference};
use crate::proxy::Place;
use crate::store::{RefKey, RefKind, Store};

use super::digests::DigestSet;
use super::memory::Memory;
use super::model::Removal;
use super::names::{ImageName, Wanted};
use super::pins::Pins;
use super::walk::{self, Image};
use super::{AdminError, blocking};

/// A removal under way.
pub(super) struct Remover {
    pub(super) store: Arc<Store>,
    pub(super) pins: Arc<Pins>,
    pub(super) memory: Memory,
    pub(super) dry_run: bool,
    /// What was used after this stays: somebody is pulling it.
    pub(super) started: SystemTime,
}

/// The images that go, by their repositories.
type Victims = BTreeMap<String, Vec<Image>>;

/// What one image's removal takes away.
#[derive(Debug, Default)]
struct Doomed {
    records: Vec<RefKey>,
    blobs: Vec<(Digest, u64)>,
    /// All parts whose records go.
    parts: Vec<Digest>,
}

/// Records and blobs removed at once: commits are batched, so together they cost little more than one.
const AT_ONCE: usize = 256;

impl Remover {
    /// Removes what is wanted.
    pub(super) async fn run(self, wanted: Wanted) -> Result<Removal, AdminError> {
        let this = Arc::new(self);
        let mut removal = Removal {
            dry_run: this.dry_run,
            ..Removal::default()
        };
        let (store, pins) = (Arc::clone(&this.store), Arc::clone(&this.pins));
        let (victims, pinned) = blocking(move || victims(&store, &pins, &wanted)).await?;
        removal.pinned = pinned;
        let names: HashSet<String> = victims
            .values()
            .flatten()
            .map(|image| image.name().to_string())
            .collect();
        let names = Arc::new(names);
        let (store, going) = (Arc::clone(&this.store), Arc::clone(&names));
        let kept = Arc::new(blocking(move || others(&store, &going)).await?);
        let mut seen = DigestSet::default();
        for images in victims.into_values() {
            seen = Arc::clone(&this)
                .remove_of_one(images, &names, &kept, seen, &mut removal)
                .await?;
        }
        Ok(removal)
    }

    /// Removes images of one repository. `seen` are the blobs that have been counted.
    async fn remove_of_one(
        self: Arc<Self>,
        images: Vec<Image>,
        names: &Arc<HashSet<String>>,
        kept: &Arc<DigestSet>,
        mut seen: DigestSet,
        removal: &mut Removal,
    ) -> Result<DigestSet, AdminError> {
        let Some(place) = images.first().map(|image| image.place.clone()) else {
            return Ok(seen);
        };
        let (store, going, of) = (Arc::clone(&self.store), Arc::clone(names), place.clone());
        let kept_here = Arc::new(blocking(move || others_of(&store, &of, &going)).await?);
        for image in images {
            removal.images.push(image.name().to_string());
            let (this, one) = (Arc::clone(&self), image.clone());
            let (kept, kept_here) = (Arc::clone(kept), Arc::clone(&kept_here));
            let mut sums = std::mem::take(removal);
            let planned = blocking(move || {
                let doomed = this.plan(&one, &kept, &kept_here, &mut seen, &mut sums)?;
                Ok::<_, io::Error>((doomed, seen, sums))
            });
            let (doomed, seen_now, sums) = planned.await?;
            (seen, *removal) = (seen_now, sums);
            if !self.dry_run {
                self.carry_out(&image, doomed).await?;
            }
        }
        Ok(seen)
    }

    /// What goes with an image. Blocks.
    fn plan(
        &self,
        image: &Image,
        kept: &DigestSet,
        kept_here: &DigestSet,
        seen: &mut DigestSet,
        sums: &mut Removal,
    ) -> io::Result<Doomed> {
        let mut parts = HashSet::new();
        image.each_part(&self.store, &mut |digest| {
            parts.insert(digest.clone());
        })?;
        let mut doomed = Doomed::default();
        for digest in parts {
            let look = self.store.look_at_blob(&digest)?;
            let stays = kept.contains(&digest) || look.is_some_and(|look| look.used > self.started);
            if let Some(look) = look
                && seen.insert(&digest)
            {
                let (count, bytes) = if stays {
                    (&mut sums.kept_blobs, &mut sums.kept_bytes)
                } else {
                    (&mut sums.blobs, &mut sums.freed_bytes)
                };
                *count = count.saturating_add(1);
                *bytes = bytes.saturating_add(look.len);
            }
            if let Some(look) = look.filter(|_| !stays) {
                doomed.blobs.push((digest.clone(), look.len));
            }
            if !kept_here.contains(&digest) {
                let kinds = [
                    RefKind::Manifest(digest.clone()),
                    RefKind::Blob(digest.clone()),
                ];
                for key in kinds.map(|kind| image.place.key(kind)) {
                    if self.store.has_ref(&key)? {
                        doomed.records.push(key);
                    }
                }
                doomed.parts.push(digest);
            }
        }
        Ok(doomed)
    }

    /// Removes the tag, then the records, then the blobs, so that what is interrupted names nothing that is gone for
    /// longer than need be.
    async fn carry_out(&self, image: &Image, doomed: Doomed) -> Result<(), AdminError> {
        if let Some((tag, _)) = &image.tag {
            let key = image.place.key(RefKind::Tag(tag.clone()));
            self.store.remove_ref(&key).await?;
            self.memory.forget_tag(&image.place, tag);
        }
        self.forget(&image.place, &doomed);
        let records = doomed.records.iter().cloned().map(|key| {
            let store = Arc::clone(&self.store);
            async move { store.remove_ref(&key).await }
        });
        at_once(records).await?;
        let blobs = doomed.blobs.iter().cloned().map(|(digest, _)| {
            let store = Arc::clone(&self.store);
            async move { store.remove_blob(&digest).await }
        });
        at_once(blobs).await?;
        // Once more, for what a request has read from disk in between.
        self.forget(&image.place, &doomed);
        Ok(())
    }

    fn forget(&self, place: &Place, doomed: &Doomed) {
        for digest in &doomed.parts {
            self.memory.forget_content(place, digest);
        }
        for (digest, _) in &doomed.blobs {
            self.memory.forget_bytes(digest);
        }
    }
}

/// Waits for all of `removals`, many at once.
async fn at_once<F>(removals: impl Iterator<Item = F> + Send) -> io::Result<()>
where
    F: Future<Output = io::Result<bool>> + Send,
{
    stream::iter(removals)
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await
}

/// The images that are meant, and the names of those that are meant but pinned. Blocks.
fn victims(
    store: &Store,
    pins: &Pins,
    wanted: &Wanted,
) -> Result<(Victims, Vec<String>), AdminError> {
    let (mut victims, mut pinned) = (Victims::new(), Vec::new());
    let mut take = |image: Image| {
        let tag = image.tag.as_ref().map(|(tag, _)| tag);
        if pins.are_for(&image.place, tag, &image.digest) {
            pinned.push(image.name().to_string());
            return;
        }
        let place = format!("{}/{}", image.place.upstream, image.place.repository);
        victims.entry(place).or_default().push(image);
    };
    match wanted {
        Wanted::Matching(_) => each_wanted(store, wanted, &mut |image| {
            take(image);
            Ok(ControlFlow::Continue(()))
        })?,
        Wanted::One(name) => find(store, name)?.into_iter().for_each(&mut take),
    }
    match wanted {
        _ if !victims.is_empty() => Ok((victims, pinned)),
        Wanted::One(_) if !pinned.is_empty() => Err(AdminError::Invalid(format!(
            "{} is pinned; take the pin away first: layby unpin",
            pinned.join(", ")
        ))),
        Wanted::One(name) => Err(AdminError::unknown_image(name)),
        Wanted::Matching(_) => Ok((victims, pinned)),
    }
}

/// The images of a name: one by its tag, or all that a digest stands for. Blocks.
pub(super) fn find(store: &Store, name: &ImageName) -> io::Result<Vec<Image>> {
    let ImageName { place, reference } = name;
    let mut found = Vec::new();
    match reference {
        Reference::Tag(tag) => {
            if let Some(record) = walk::tag_record(store, place, tag)? {
                found.push(Image {
                    place: place.clone(),
                    digest: record.digest.clone(),
                    tag: Some((tag.clone(), record)),
                });
            }
        }
        Reference::Digest(digest) => {
            let _ = walk::each_image_of(store, place, None, &mut |image| {
                if image.digest == *digest {
                    found.push(image);
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
    }
    Ok(found)
}

/// Visits the images with a tag that are wanted. Blocks.
pub(super) fn each_wanted(
    store: &Store,
    wanted: &Wanted,
    visit: &mut dyn FnMut(Image) -> walk::Step,
) -> io::Result<()> {
    let pattern = match wanted {
        Wanted::One(name) => {
            for image in find(store, name)? {
                if visit(image)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        Wanted::Matching(pattern) => pattern,
    };
    let mut in_repository = |upstream, repository| {
        if !pattern.matches_repository(&upstream, &repository) {
            return Ok(ControlFlow::Continue(()));
        }
        let place = Place {
            upstream,
            repository,
        };
        for tag in walk::tags(store, &place)? {
            if pattern.matches(&place.upstream, &place.repository, &tag)
                && let Some(record) = walk::tag_record(store, &place, &tag)?
            {
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
        Ok(ControlFlow::Continue(()))
    };
    store.each_repository(None, &mut in_repository, &mut |_| {})
}

/// What all images lead to. Blocks.
pub(super) fn led_to(store: &Store) -> io::Result<DigestSet> {
    others(store, &HashSet::new())
}

/// What all images but those that go lead to. Blocks.
fn others(store: &Store, going: &HashSet<String>) -> io::Result<DigestSet> {
    let mut kept = DigestSet::default();
    walk::each_image(store, None, &mut |image| {
        keep(store, &image, going, &mut kept)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(kept)
}

/// The same within one repository.
fn others_of(store: &Store, place: &Place, going: &HashSet<String>) -> io::Result<DigestSet> {
    let mut kept = DigestSet::default();
    let _ = walk::each_image_of(store, place, None, &mut |image| {
        keep(store, &image, going, &mut kept)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(kept)
}

fn keep(
    store: &Store,
    image: &Image,
    going: &HashSet<String>,
    kept: &mut DigestSet,
) -> io::Result<()> {
    if going.contains(&image.name().to_string()) {
        return Ok(());
    }
    image.each_part(store, &mut |digest| {
        kept.insert(digest);
    })
}

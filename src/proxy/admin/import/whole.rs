//! Whether images are whole, and what each is made of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::oci::{Descriptor, Digest, ManifestInfo, MediaType};
use crate::proxy::Place;
use crate::proxy::admin::names::ImageName;
use crate::proxy::manifests::EMPTY;
use crate::proxy::ports::MAX_MANIFEST;

use super::bases::Bases;
use super::halt::Halt;
use super::images::Top;
use super::intake::Intake;

/// An image of which everything is here.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) name: ImageName,
    pub(super) digest: Digest,
    /// Shared with whatever else the same manifest is called in its repository.
    pub(super) parts: Arc<Parts>,
}

/// What an image is made of, each part once.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Digest, length and type of each manifest, its own first.
    pub(super) manifests: Vec<(Digest, u64, MediaType)>,
    pub(super) blobs: Vec<(Digest, u64)>,
    /// Those that are among the manifests.
    seen: HashSet<Digest>,
    /// Those that are among the blobs.
    seen_blobs: HashSet<Digest>,
}

/// What parts depend on.
type Key = (Place, Digest, Option<String>);

/// Finds out whether images are whole.
pub(super) struct Assembler<'a> {
    intake: &'a mut Intake,
    /// What parts may have come with.
    bases: &'a Bases,
    /// Asked for each manifest.
    go_on: &'a mut dyn FnMut() -> Result<(), Halt>,
    known: HashMap<Key, Arc<Parts>>,
    /// Parts that all further images may have together.
    left: usize,
}

impl Whole {
    /// Manifests and other blobs.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        let manifests = self.parts.manifests.iter().map(|(digest, ..)| digest);
        manifests.chain(self.parts.blobs.iter().map(|(digest, _)| digest))
    }
}

impl<'a> Assembler<'a> {
    pub(super) fn new(
        intake: &'a mut Intake,
        bases: &'a Bases,
        go_on: &'a mut dyn FnMut() -> Result<(), Halt>,
    ) -> Self {
        Self {
            intake,
            bases,
            go_on,
            known: HashMap::new(),
            left: MOST_PARTS,
        }
    }

    /// Everything that the image needs. Blocks.
    pub(super) fn whole(&mut self, top: &Top) -> Result<Whole, Halt> {
        let key = (
            top.name.place.clone(),
            top.digest.clone(),
            top.media_type.clone(),
        );
        let parts = if let Some(parts) = self.known.get(&key).map(Arc::clone) {
            (self.go_on)()?;
            self.count(parts.manifests.len() + parts.blobs.len())?;
            parts
        } else {
            let mut parts = Parts::default();
            let media_type = top.media_type.as_deref().and_then(MediaType::parse);
            if !self.collect(
                &top.name,
                &top.digest,
                media_type.as_ref(),
                DEPTH,
                &mut parts,
            )? {
                return Err(self.missing(&top.name, &top.digest));
            }
            parts.seen_blobs = HashSet::new();
            let parts = Arc::new(parts);
            self.known.insert(key, Arc::clone(&parts));
            parts
        };
        for needed in &top.manifests {
            if !parts.seen.contains(needed) {
                return Err(self.missing(&top.name, needed));
            }
        }
        Ok(Whole {
            name: top.name.clone(),
            digest: top.digest.clone(),
            parts,
        })
    }

    /// Whether the manifest is there; what it needs has to be then.
    fn collect(
        &mut self,
        name: &ImageName,
        digest: &Digest,
        media_type: Option<&MediaType>,
        depth: u32,
        parts: &mut Parts,
    ) -> Result<bool, Halt> {
        if parts.seen.contains(digest) {
            return Ok(true);
        }
        (self.go_on)()?;
        let Some(len) = self.len_of(&name.place, digest)? else {
            return Ok(false);
        };
        let Some(bytes) = self.intake.store.peek_blob(digest, MAX_MANIFEST)? else {
            return Ok(false);
        };
        let info = ManifestInfo::parse(media_type, &bytes).map_err(|error| {
            Halt::refused(format!("the archive is refused: {digest} in it is {error}"))
        })?;
        self.count(1)?;
        parts.seen.insert(digest.clone());
        parts
            .manifests
            .push((digest.clone(), len, info.media_type.clone()));
        for blob in info.blobs() {
            self.blob(name, blob, parts)?;
        }
        let mut is_any = info.manifests().is_empty();
        for child in info.manifests() {
            let Some(depth) = depth.checked_sub(1) else {
                break;
            };
            let media_type = child.media_type.as_deref().and_then(MediaType::parse);
            is_any |= self.collect(name, &child.digest, media_type.as_ref(), depth, parts)?;
        }
        if is_any {
            return Ok(true);
        }
        Err(Halt::refused(format!(
            "the archive is refused: {name} in it is a list of images for several platforms, and none of them is in it"
        )))
    }

    fn blob(&mut self, name: &ImageName, blob: &Descriptor, parts: &mut Parts) -> Result<(), Halt> {
        let is_needed = blob.digest.as_str() != EMPTY && blob.urls.is_empty();
        match self.len_of(&name.place, &blob.digest)? {
            Some(len) if len == blob.size => {
                if parts.seen_blobs.insert(blob.digest.clone()) {
                    self.count(1)?;
                    parts.blobs.push((blob.digest.clone(), len));
                }
            }
            _ if !is_needed => {}
            Some(len) => {
                return Err(Halt::refused(format!(
                    "the archive is refused: {} in it has {len} bytes, and its manifest says {}",
                    blob.digest, blob.size
                )));
            }
            None => return Err(self.missing(name, &blob.digest)),
        }
        Ok(())
    }

    /// The length of what the archive has brought, or an earlier one that it builds on.
    fn len_of(&mut self, place: &Place, digest: &Digest) -> Result<Option<u64>, Halt> {
        if let Some(len) = self.intake.len_of(digest) {
            return Ok(Some(len));
        }
        if self.bases.lend(&self.intake.store, place, digest)? {
            return Ok(self.intake.borrow(digest)?);
        }
        Ok(None)
    }

    /// Refuses more parts than are kept in memory.
    fn count(&mut self, parts: usize) -> Result<(), Halt> {
        self.left = self.left.checked_sub(parts).ok_or_else(|| {
            Halt::refused(format!(
                "the archive is refused: its images have more than {MOST_PARTS} parts; export fewer at once"
            ))
        })?;
        Ok(())
    }

    fn missing(&self, name: &ImageName, digest: &Digest) -> Halt {
        let bases = &self.bases.claimed;
        if bases.is_empty() {
            return Halt::refused(format!(
                "the archive is refused: {name} needs {digest}, which is not in it; export it again"
            ));
        }
        let bases: Vec<&str> = bases.iter().map(Digest::as_str).collect();
        Halt::refused(format!(
            "{name} needs {digest}, which is not in the archive, and no earlier export that it builds on ({}) has brought it \
             here; import that first, or export without --since",
            bases.join(", ")
        ))
    }
}

/// Indexes within indexes that are followed.
const DEPTH: u32 = 4;
/// Manifests and other blobs of all images of an archive.
const MOST_PARTS: usize = 1_000_000;

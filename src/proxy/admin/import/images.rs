//! Which images an archive has, what they are called here, and whether each is whole.

use std::collections::HashSet;

use crate::bundle::{DockerLayer, Fault, Index, Member, Named, docker_manifest, read_docker};
use crate::oci::{Descriptor, Digest, ManifestInfo, MediaType, Reference};
use crate::proxy::admin::AdminError;
use crate::proxy::admin::names::{ImageName, Names};
use crate::proxy::manifests::EMPTY;
use crate::proxy::ports::MAX_MANIFEST;

use super::halt::Halt;
use super::intake::{Intake, Taken};

/// An image that is to be imported, as its archive lists it.
#[derive(Debug, Clone)]
pub(super) struct Top {
    pub(super) name: ImageName,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: Option<String>,
    /// Manifests that have to be here.
    pub(super) manifests: Vec<Digest>,
}

/// What an image is made of.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) name: ImageName,
    pub(super) digest: Digest,
    /// Digest, length and type of each manifest, its own first.
    pub(super) manifests: Vec<(Digest, u64, MediaType)>,
    pub(super) blobs: Vec<(Digest, u64)>,
}

/// Gives images their names.
pub(super) struct Namer<'a> {
    pub(super) names: &'a Names,
    /// The name of the only image, as the operator gave it.
    pub(super) given: Option<&'a str>,
}

impl Namer<'_> {
    /// The images of an `index.json`.
    pub(super) fn of_index(&self, index: &Index) -> Result<Vec<Top>, Halt> {
        let is_only = index.images.len() == 1;
        let top = |image: &crate::bundle::IndexImage| {
            Ok(Top {
                name: self.name(&image.named, &image.digest, is_only)?,
                digest: image.digest.clone(),
                size: image.size,
                media_type: image.media_type.clone(),
                manifests: image.manifests.clone(),
            })
        };
        index.images.iter().map(top).collect()
    }

    fn name(&self, named: &Named, digest: &Digest, is_only: bool) -> Result<ImageName, Halt> {
        if let Some(given) = self.given {
            if !is_only {
                return Err(Halt::refused(format!(
                    "the archive has several images, and they cannot all be called {given}; leave --as away"
                )));
            }
            let has_reference = given
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains([':', '@']));
            return match named {
                Named::Layby { tag: Some(tag), .. } | Named::Tag(tag) if !has_reference => {
                    self.known(&format!("{given}:{tag}"), digest)
                }
                _ => self.known(given, digest),
            };
        }
        match named {
            Named::Layby {
                upstream,
                repository,
                tag,
            } => {
                let text = match tag {
                    Some(tag) => format!("{upstream}/{repository}:{tag}"),
                    None => format!("{upstream}/{repository}@{digest}"),
                };
                // Exactly that: what a key means here is for the configuration to say.
                let name = text.parse::<ImageName>()?;
                self.is_known(&name)?;
                Ok(name)
            }
            Named::Whole(text) => self.known(text, digest),
            Named::Tag(tag) => Err(unnamed(&format!("the tag {tag:?} of no repository"))),
            Named::Nothing => Err(unnamed("no name")),
        }
    }

    /// The image of a `manifest.json`, once for each of its tags.
    fn of_docker(&self, tags: &[String], made: &Taken, is_only: bool) -> Result<Vec<Top>, Halt> {
        let top = |name| Top {
            name,
            digest: made.digest.clone(),
            size: made.len,
            media_type: Some(MediaType::DOCKER_MANIFEST.to_owned()),
            manifests: Vec::new(),
        };
        if self.given.is_some() || tags.is_empty() {
            let name = self.name(&Named::Nothing, &made.digest, is_only)?;
            return Ok(vec![top(name)]);
        }
        tags.iter()
            .map(|tag| self.known(tag, &made.digest).map(top))
            .collect()
    }

    /// A name as people write it. One by digest has to be the image's own.
    fn known(&self, text: &str, digest: &Digest) -> Result<ImageName, Halt> {
        let name = self.names.image(text)?;
        self.is_known(&name)?;
        match &name.reference {
            Reference::Digest(said) if said != digest => Err(Halt::refused(format!(
                "the archive is refused: an image in it is called {text}, but its digest is {digest}"
            ))),
            _ => Ok(name),
        }
    }

    fn is_known(&self, name: &ImageName) -> Result<(), Halt> {
        let upstream = &name.place.upstream;
        if self.names.has(upstream) {
            return Ok(());
        }
        Err(Halt::Refused(AdminError::Invalid(format!(
            "{name} is of an upstream that is not configured here, so that nobody could pull it: add [upstreams.\"{upstream}\"] \
             with its url to the configuration and restart, or give another name with --as"
        ))))
    }
}

fn unnamed(what: &str) -> Halt {
    Halt::Refused(AdminError::Invalid(format!(
        "the archive has {what} for an image; say what it is called: --as docker.io/library/alpine:3.20"
    )))
}

/// Makes manifests for images that `docker save` wrote without, and names them. `real` finds what was taken in for a file
/// name.
pub(super) fn of_docker(
    json: &[u8],
    namer: &Namer<'_>,
    intake: &mut Intake,
    real: &dyn Fn(&Intake, &Member) -> Option<Taken>,
) -> Result<Vec<Top>, Halt> {
    let images = read_docker(json)?;
    let mut tops = Vec::new();
    let is_only = images.len() == 1;
    for image in &images {
        let mut files = Vec::new();
        for member in image.files()? {
            let taken = real(intake, &member).ok_or_else(|| {
                Halt::from(Fault::Missing(format!(
                    "manifest.json names {member}, which is not in it"
                )))
            })?;
            if taken.is_gzip && member.promised().is_none() {
                return Err(Halt::from(Fault::Missing(format!(
                    "{member} is compressed and its name is no digest, so that it cannot be compared with anything"
                ))));
            }
            files.push(taken);
        }
        let Some((config, layers)) = files.split_first() else {
            continue;
        };
        let json = intake.store.peek_blob(&config.digest, MAX_MANIFEST)?;
        let json = json.ok_or_else(|| {
            Halt::refused(
                "the archive is refused: the configuration of an image in it is too large",
            )
        })?;
        let layers: Vec<DockerLayer> = layers
            .iter()
            .map(|taken| DockerLayer {
                digest: taken.digest.clone(),
                size: taken.len,
                is_gzip: taken.is_gzip,
            })
            .collect();
        let made = intake.put(&docker_manifest(&json, &layers)?)?;
        tops.extend(namer.of_docker(&image.tags, &made, is_only)?);
    }
    intake.commit()?;
    Ok(tops)
}

/// Finds out whether images are whole.
pub(super) struct Assembler<'a> {
    pub(super) intake: &'a Intake,
    /// Whether parts may have come with an earlier export.
    pub(super) bases: &'a [Digest],
}

impl Assembler<'_> {
    /// Everything that the image needs. Blocks.
    pub(super) fn whole(&self, top: &Top) -> Result<Whole, Halt> {
        let mut whole = Whole {
            name: top.name.clone(),
            digest: top.digest.clone(),
            manifests: Vec::new(),
            blobs: Vec::new(),
        };
        let mut seen = HashSet::new();
        let media_type = top.media_type.as_deref().and_then(MediaType::parse);
        if !self.collect(
            &top.digest,
            media_type.as_ref(),
            DEPTH,
            &mut seen,
            &mut whole,
        )? {
            return Err(self.lacking(top, &top.digest));
        }
        for needed in &top.manifests {
            if !seen.contains(needed) {
                return Err(self.lacking(top, needed));
            }
        }
        Ok(whole)
    }

    /// Whether the manifest is there; what it needs has to be then.
    fn collect(
        &self,
        digest: &Digest,
        media_type: Option<&MediaType>,
        depth: u32,
        seen: &mut HashSet<Digest>,
        whole: &mut Whole,
    ) -> Result<bool, Halt> {
        if seen.contains(digest) {
            return Ok(true);
        }
        let Some(len) = self.len_of(digest)? else {
            return Ok(false);
        };
        let Some(bytes) = self.intake.store.peek_blob(digest, MAX_MANIFEST)? else {
            return Ok(false);
        };
        let info = ManifestInfo::parse(media_type, &bytes).map_err(|error| {
            Halt::refused(format!("the archive is refused: {digest} in it is {error}"))
        })?;
        seen.insert(digest.clone());
        whole
            .manifests
            .push((digest.clone(), len, info.media_type.clone()));
        for blob in info.blobs() {
            self.blob(blob, whole)?;
        }
        let mut is_any = info.manifests().is_empty();
        for child in info.manifests() {
            let Some(depth) = depth.checked_sub(1) else {
                break;
            };
            let media_type = child.media_type.as_deref().and_then(MediaType::parse);
            is_any |= self.collect(&child.digest, media_type.as_ref(), depth, seen, whole)?;
        }
        if is_any {
            return Ok(true);
        }
        Err(Halt::refused(format!(
            "the archive is refused: {} in it is a list of images for several platforms, and none of them is in it",
            whole.name
        )))
    }

    fn blob(&self, blob: &Descriptor, whole: &mut Whole) -> Result<(), Halt> {
        let is_needed = blob.digest.as_str() != EMPTY && blob.urls.is_empty();
        match self.len_of(&blob.digest)? {
            Some(len) if len == blob.size => whole.blobs.push((blob.digest.clone(), len)),
            _ if !is_needed => {}
            Some(len) => {
                return Err(Halt::refused(format!(
                    "the archive is refused: {} in it has {len} bytes, and its manifest says {}",
                    blob.digest, blob.size
                )));
            }
            None => return Err(self.missing(&whole.name, &blob.digest)),
        }
        Ok(())
    }

    /// The length of what the archive has brought, or an earlier one that it builds on.
    fn len_of(&self, digest: &Digest) -> Result<Option<u64>, Halt> {
        match self.intake.len_of(digest) {
            None if !self.bases.is_empty() => Ok(self.intake.store.blob_len(digest)?),
            len => Ok(len),
        }
    }

    fn lacking(&self, top: &Top, digest: &Digest) -> Halt {
        self.missing(&top.name, digest)
    }

    fn missing(&self, name: &ImageName, digest: &Digest) -> Halt {
        if self.bases.is_empty() {
            return Halt::refused(format!(
                "the archive is refused: {name} needs {digest}, which is not in it; export it again"
            ));
        }
        let bases: Vec<&str> = self.bases.iter().map(Digest::as_str).collect();
        Halt::refused(format!(
            "{name} needs {digest}, which is neither in the archive nor here: it holds only what was not in an earlier \
             export ({}); import that first, or export without --since",
            bases.join(", ")
        ))
    }
}

/// Indexes within indexes that are followed.
const DEPTH: u32 = 4;

//! Which images an archive has, and what they are called here.

use crate::bundle::{DockerLayer, Fault, Index, Member, Named, docker_manifest, read_docker};
use crate::oci::{Digest, MediaType, Reference};
use crate::proxy::admin::AdminError;
use crate::proxy::admin::names::{ImageName, Names};
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

/// Gives images their names.
pub(super) struct Namer<'a> {
    pub(super) names: &'a Names,
    /// The name of the only image, as the operator gave it.
    pub(super) given: Option<&'a str>,
}

impl Namer<'_> {
    /// The images of an `index.json`.
    pub(super) fn of_index(&self, index: &Index) -> Result<Vec<Top>, Halt> {
        check_number(index.images.len())?;
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
                own(name, &text, digest)
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
        own(name, text, digest)
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

/// The name, unless it is by a digest that is not the image's own.
fn own(name: ImageName, text: &str, digest: &Digest) -> Result<ImageName, Halt> {
    match &name.reference {
        Reference::Digest(said) if said != digest => Err(Halt::refused(format!(
            "the archive is refused: an image in it is called {text}, but its digest is {digest}"
        ))),
        _ => Ok(name),
    }
}

/// Refuses more images than are taken in at once.
fn check_number(images: usize) -> Result<(), Halt> {
    if images <= MOST_IMAGES {
        return Ok(());
    }
    Err(Halt::refused(format!(
        "the archive is refused: it has more than {MOST_IMAGES} images; export fewer at once"
    )))
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
        check_number(tops.len())?;
    }
    intake.commit()?;
    Ok(tops)
}

/// Images of an archive, a name of one counted like another image.
const MOST_IMAGES: usize = 10_000;

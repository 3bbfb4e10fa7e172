//! Manifests (image-spec, manifest.md and image-index.md): the few fields that matter to a cache.
//!
//! The bytes of a manifest are its identity, so nothing here re-encodes them: a [`ManifestInfo`] is read beside them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Digest, MediaType};

mod descriptor;

pub(super) use descriptor::null_as_default;
pub use descriptor::{Descriptor, Platform};

/// What a manifest says about itself and about other content. A hint for sizes and types, never a proof of membership.
#[derive(Debug, Clone)]
pub struct ManifestInfo {
    /// Its type: what it was sent as, else what the body says, else what its shape shows. Never a generic one.
    pub media_type: MediaType,
    /// What it refers to, as a signature to an image.
    pub subject: Option<Digest>,
    /// Its own `artifactType`.
    pub artifact_type: Option<String>,
    /// Its annotations as they were written.
    pub annotations: Option<Box<RawValue>>,
    /// What it names.
    pub kind: ManifestKind,
}

/// What a manifest names.
#[derive(Debug, Clone)]
pub enum ManifestKind {
    /// An image, or an artifact in the form of one.
    Image {
        /// Its configuration.
        config: Box<Descriptor>,
        /// Its layers, the lowest first.
        layers: Vec<Descriptor>,
    },
    /// A list of manifests. Registries may hold only some of them.
    Index {
        /// The manifests listed.
        manifests: Vec<Descriptor>,
    },
    /// Anything else: an artifact manifest, an image without configuration, a type that Layby does not know.
    Other {
        /// The blobs named, as far as they could be read.
        blobs: Vec<Descriptor>,
    },
}

/// Why bytes are not served as a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A web page, or no JSON object: the upstream's address or a portal before it is to blame.
    #[error("not a manifest but {0}: check the upstream's url and what stands before it")]
    NotAManifest(&'static str),
    /// Docker's first schema, which neither clients nor registries take any more.
    #[error(
        "a manifest of Docker's schema 1, which no current client takes: push the image again with a newer tool"
    )]
    Schema1,
    /// It can be read in two ways, so that two clients may see different content (CVE-2021-41190).
    #[error("an ambiguous manifest: {0}")]
    Ambiguous(&'static str),
    /// It has the shape of a manifest, but a field that matters cannot be read.
    #[error("a manifest that cannot be read: {0}")]
    Invalid(#[source] serde_json::Error),
    /// A JSON object that neither its type nor its fields show to be a manifest.
    #[error("a JSON object without a type or a field of a manifest")]
    Shapeless,
}

impl ManifestInfo {
    /// Reads a manifest that was sent with this `Content-Type`. Never changes it.
    ///
    /// Takes time and memory linear in the length of `bytes`, which the caller bounds, whatever they hold.
    pub fn parse(content_type: Option<&MediaType>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if content_type.is_some_and(MediaType::is_html) {
            return Err(ManifestError::NotAManifest("a web page"));
        }
        let document = Document::read(bytes)?;
        let own = document.own_type();
        // Schema 1 is known by its fields, and what has others is not made it by its label.
        let sent =
            content_type.filter(|sent| !(sent.is_generic() || sent.is_schema1() && own.is_some()));
        for said in [sent, own.as_ref()] {
            document.check(said)?;
        }
        let shape = document.shape();
        let media_type = match sent.cloned().or(own) {
            Some(said) => said,
            None => document.guess(shape)?,
        };
        let kind = match document.kind(shape) {
            Ok(kind) => kind,
            // A type that Layby does not know may use the same words for other things.
            Err(_) if !is_known(&media_type) => ManifestKind::Other { blobs: Vec::new() },
            Err(error) => return Err(ManifestError::Invalid(error)),
        };
        let subject: Option<Subject> = read(document.subject).map_err(ManifestError::Invalid)?;
        Ok(Self {
            media_type,
            subject: subject.map(|subject| subject.digest),
            artifact_type: document.artifact_type,
            annotations: document.annotations.map(ToOwned::to_owned),
            kind,
        })
    }

    /// The blobs that it names: configuration and layers, or whatever else; not the manifests of an index.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (first, rest): (Option<&Descriptor>, &[Descriptor]) = match &self.kind {
            ManifestKind::Image { config, layers } => (Some(config), layers),
            ManifestKind::Index { .. } => (None, &[]),
            ManifestKind::Other { blobs } => (None, blobs),
        };
        first.into_iter().chain(rest)
    }

    /// The manifests that it lists; none unless it is an index.
    pub fn manifests(&self) -> &[Descriptor] {
        match &self.kind {
            ManifestKind::Index { manifests } => manifests,
            ManifestKind::Image { .. } | ManifestKind::Other { .. } => &[],
        }
    }

    /// The descriptor by which a list of referrers names it (distribution-spec, "Listing Referrers").
    pub fn as_referrer(&self, digest: Digest, size: u64) -> Descriptor {
        let of_config = match &self.kind {
            ManifestKind::Image { config, .. } => config.media_type.as_ref(),
            ManifestKind::Index { .. } | ManifestKind::Other { .. } => None,
        };
        Descriptor {
            media_type: Some(self.media_type.as_str().to_owned()),
            digest,
            size,
            urls: Vec::new(),
            platform: None,
            artifact_type: self.artifact_type.as_ref().or(of_config).cloned(),
            annotations: self.annotations.clone(),
        }
    }
}

/// The fields of every kind of manifest; those that decide the kind are read only once it is known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow)]
    schema_version: Option<&'a RawValue>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(borrow)]
    layers: Option<&'a RawValue>,
    #[serde(borrow)]
    manifests: Option<&'a RawValue>,
    #[serde(borrow)]
    blobs: Option<&'a RawValue>,
    #[serde(borrow)]
    fs_layers: Option<&'a RawValue>,
}

/// Which fields decide a manifest's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Image,
    Index,
    Other,
}

/// The part of a `subject` that is read.
#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

impl<'a> Document<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        match bytes.trim_ascii_start().first() {
            Some(b'{') => {}
            Some(b'<') => return Err(ManifestError::NotAManifest("a web page")),
            Some(_) => {
                return Err(ManifestError::NotAManifest(
                    "something that is no JSON object",
                ));
            }
            None => return Err(ManifestError::NotAManifest("nothing at all")),
        }
        serde_json::from_slice(bytes).map_err(|error| {
            if error.is_data() {
                ManifestError::Invalid(error)
            } else {
                ManifestError::NotAManifest("something that is no JSON object")
            }
        })
    }

    /// The type that the body gives itself, if it says anything.
    fn own_type(&self) -> Option<MediaType> {
        let own = MediaType::parse(self.media_type.as_deref()?)?;
        (!own.is_generic() && !own.is_html()).then_some(own)
    }

    /// Refuses what current clients refuse, by a type that it is said to have.
    fn check(&self, said: Option<&MediaType>) -> Result<(), ManifestError> {
        let is_image = self.config.is_some() || self.layers.is_some();
        if self.manifests.is_some()
            && (is_image || self.blobs.is_some() || self.fs_layers.is_some())
        {
            return Err(ManifestError::Ambiguous(
                "it lists both manifests and the parts of an image",
            ));
        }
        let has_first_version = self.schema_version.is_some_and(|raw| raw.get() == "1");
        let is_bare = !is_image && self.manifests.is_none() && self.blobs.is_none();
        if self.fs_layers.is_some()
            || said.is_some_and(MediaType::is_schema1)
            || (has_first_version && is_bare)
        {
            return Err(ManifestError::Schema1);
        }
        match said {
            Some(said) if said.is_index() && is_image => Err(ManifestError::Ambiguous(
                "its type is that of an index, its fields those of an image",
            )),
            Some(said) if is_image_type(said) && self.manifests.is_some() => {
                Err(ManifestError::Ambiguous(
                    "its type is that of an image, its fields those of an index",
                ))
            }
            _ => Ok(()),
        }
    }

    fn shape(&self) -> Shape {
        if self.manifests.is_some() {
            Shape::Index
        } else if self.config.is_some() {
            Shape::Image
        } else {
            Shape::Other
        }
    }

    /// The type of a manifest that nothing names one for.
    fn guess(&self, shape: Shape) -> Result<MediaType, ManifestError> {
        let config: Option<OfConfig> = read(self.config).unwrap_or_default();
        let is_docker = config
            .and_then(|config| config.media_type)
            .is_some_and(|of_config| of_config.starts_with("application/vnd.docker."));
        let guessed = match shape {
            Shape::Index => MediaType::OCI_INDEX,
            Shape::Image if is_docker => MediaType::DOCKER_MANIFEST,
            Shape::Image => MediaType::OCI_MANIFEST,
            Shape::Other if self.layers.is_some() => MediaType::OCI_MANIFEST,
            Shape::Other if self.blobs.is_some() => MediaType::OCI_ARTIFACT,
            Shape::Other => return Err(ManifestError::Shapeless),
        };
        MediaType::parse(guessed).ok_or(ManifestError::Shapeless)
    }

    fn kind(&self, shape: Shape) -> Result<ManifestKind, serde_json::Error> {
        let list = |raw| Ok(read(raw)?.unwrap_or_default());
        Ok(match (shape, read(self.config)?) {
            (Shape::Index, _) => ManifestKind::Index {
                manifests: list(self.manifests)?,
            },
            (_, Some(config)) => ManifestKind::Image {
                config,
                layers: list(self.layers)?,
            },
            (_, None) => ManifestKind::Other {
                blobs: list(self.layers.or(self.blobs))?,
            },
        })
    }
}

/// The part of a `config` that tells Docker's manifests from OCI's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfConfig {
    media_type: Option<String>,
}

/// Reads a field, if it is there.
fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, serde_json::Error> {
    raw.map(|raw| serde_json::from_str(raw.get())).transpose()
}

fn is_image_type(media_type: &MediaType) -> bool {
    matches!(
        media_type.as_str(),
        MediaType::OCI_MANIFEST | MediaType::DOCKER_MANIFEST
    )
}

fn is_known(media_type: &MediaType) -> bool {
    media_type.is_index()
        || is_image_type(media_type)
        || media_type.as_str() == MediaType::OCI_ARTIFACT
}

#[cfg(test)]
mod tests;

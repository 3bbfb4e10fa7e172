//! `index.json`: which images there are, and what each is called (image-spec, image-layout.md, "index.json file").
//!
//! Each image has its own entry, whose annotations say its name in three ways: Layby's own, exact and in parts;
//! containerd's and podman's, in one piece; and the tag alone, which skopeo, oras and others choose by.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, MediaType};

use super::{Fault, INDEX};

/// The images of a layout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// In order of their names.
    pub images: Vec<IndexImage>,
    /// Earlier exports without whose blobs these images are not whole: the digests of their `index.json`.
    pub bases: Vec<Digest>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexImage {
    /// What it is called.
    pub named: Named,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
    /// Type of its manifest.
    pub media_type: Option<String>,
    /// Where it is an index: the manifests that it leads to and that are meant to be here whole. Empty: it is not said.
    pub manifests: Vec<Digest>,
}

/// What an image is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// As Layby writes it.
    Layby {
        /// Key of its upstream.
        upstream: String,
        /// Its repository there.
        repository: String,
        /// Its tag; `None`: by its digest alone.
        tag: Option<String>,
    },
    /// As other tools write it: `docker.io/library/alpine:3.20`.
    Whole(String),
    /// Only a tag.
    Tag(String),
    /// Not at all.
    Nothing,
}

/// The document.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Listed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

/// An entry of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

type Annotations = BTreeMap<String, String>;

impl Named {
    /// In one piece, where it is known whole.
    pub fn whole(&self) -> Option<String> {
        match self {
            Self::Layby {
                upstream,
                repository,
                tag: Some(tag),
            } => Some(format!("{upstream}/{repository}:{tag}")),
            Self::Whole(name) => Some(name.clone()),
            _ => None,
        }
    }

    fn tag(&self) -> Option<&str> {
        match self {
            Self::Layby { tag, .. } => tag.as_deref(),
            _ => None,
        }
    }

    fn of(annotations: &Annotations) -> Self {
        let get = |key| annotations.get(key).filter(|value| !value.is_empty());
        if let (Some(upstream), Some(repository)) = (get(UPSTREAM), get(REPOSITORY)) {
            return Self::Layby {
                upstream: upstream.clone(),
                repository: repository.clone(),
                tag: get(TAG).cloned(),
            };
        }
        match (get(CONTAINERD_NAME), get(REF_NAME)) {
            (Some(name), _) => Self::Whole(name.clone()),
            // A tag holds neither.
            (None, Some(name)) if name.contains(['/', ':', '@']) => Self::Whole(name.clone()),
            (None, Some(tag)) => Self::Tag(tag.clone()),
            (None, None) => Self::Nothing,
        }
    }
}

impl Index {
    /// Puts the images in order, each once.
    pub fn sort(&mut self) {
        self.images
            .sort_by(|a, b| (&a.named, &a.digest).cmp(&(&b.named, &b.digest)));
        self.images.dedup();
        self.bases.sort();
        self.bases.dedup();
    }

    /// The document: the same bytes for the same images.
    pub fn to_json(&self) -> Result<Vec<u8>, Fault> {
        let mut uses = HashMap::<&str, u32>::new();
        for tag in self.images.iter().filter_map(|image| image.named.tag()) {
            *uses.entry(tag).or_default() += 1;
        }
        let listed = |image: &IndexImage| {
            let tag = image.named.tag();
            // Who chooses by the name takes the first of several, so each has its own.
            let is_alone = tag.is_some_and(|tag| uses.get(tag) == Some(&1));
            Listed {
                media_type: image.media_type.clone(),
                digest: image.digest.clone(),
                size: image.size,
                annotations: Some(annotations(image, is_alone)),
            }
        };
        let document = Document {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX.to_owned()),
            manifests: self.images.iter().map(listed).collect(),
            annotations: (!self.bases.is_empty())
                .then(|| Annotations::from([(BASE.to_owned(), joined(&self.bases))])),
        };
        serde_json::to_vec(&document).map_err(|error| Fault::document(INDEX, &error))
    }

    /// Reads the document, whoever wrote it.
    pub fn read(json: &[u8]) -> Result<Self, Fault> {
        let document: Document =
            serde_json::from_slice(json).map_err(|error| Fault::document(INDEX, &error))?;
        let listed = |key: &str, annotations: &Annotations| {
            let text = annotations.get(key).map(String::as_str).unwrap_or_default();
            let digests = text.split(',').filter(|text| !text.is_empty());
            digests
                .map(|text| text.trim().parse::<Digest>())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| Fault::document(INDEX, &format!("{key}: {error}")))
        };
        let mut images = Vec::new();
        for one in document.manifests {
            let annotations = one.annotations.unwrap_or_default();
            images.push(IndexImage {
                named: Named::of(&annotations),
                manifests: listed(MANIFESTS, &annotations)?,
                digest: one.digest,
                size: one.size,
                media_type: one.media_type,
            });
        }
        let annotations = document.annotations.unwrap_or_default();
        Ok(Self {
            images,
            bases: listed(BASE, &annotations)?,
        })
    }
}

fn annotations(image: &IndexImage, is_alone: bool) -> Annotations {
    let mut annotations = Annotations::new();
    let mut put = |key: &str, value: String| _ = annotations.insert(key.to_owned(), value);
    if let Named::Layby {
        upstream,
        repository,
        tag,
    } = &image.named
    {
        put(UPSTREAM, upstream.clone());
        put(REPOSITORY, repository.clone());
        if let Some(tag) = tag {
            put(TAG, tag.clone());
        }
    }
    if let Some(whole) = image.named.whole() {
        let short = image.named.tag().filter(|_| is_alone);
        put(REF_NAME, short.unwrap_or(&whole).to_owned());
        put(CONTAINERD_NAME, whole);
    }
    if !image.manifests.is_empty() {
        put(MANIFESTS, joined(&image.manifests));
    }
    annotations
}

fn joined(digests: &[Digest]) -> String {
    let texts: Vec<&str> = digests.iter().map(Digest::as_str).collect();
    texts.join(",")
}

/// The tag, or whatever else an image is chosen by (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The name under which containerd, podman and docker take an image in.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const UPSTREAM: &str = "dev.layby.upstream";
const REPOSITORY: &str = "dev.layby.repository";
const TAG: &str = "dev.layby.tag";
const MANIFESTS: &str = "dev.layby.manifests";
const BASE: &str = "dev.layby.base";

#[cfg(test)]
mod tests {
    use super::*;

    fn image(upstream: &str, repository: &str, tag: Option<&str>) -> IndexImage {
        IndexImage {
            named: Named::Layby {
                upstream: upstream.to_owned(),
                repository: repository.to_owned(),
                tag: tag.map(str::to_owned),
            },
            digest: Digest::sha256(repository.as_bytes()),
            size: 7,
            media_type: Some(MediaType::OCI_MANIFEST.to_owned()),
            manifests: Vec::new(),
        }
    }

    fn ref_names(index: &Index) -> Vec<Option<String>> {
        let json: serde_json::Value = serde_json::from_slice(&index.to_json().unwrap()).unwrap();
        let entries = json["manifests"].as_array().unwrap();
        entries
            .iter()
            .map(|one| one["annotations"][REF_NAME].as_str().map(str::to_owned))
            .collect()
    }

    #[test]
    fn what_was_written_is_read_again_in_one_order() {
        let mut several = image("ghcr.io", "org/app", Some("v1"));
        several.manifests = vec![Digest::sha256(b"a"), Digest::sha256(b"b")];
        let images = vec![
            several,
            image("docker.io", "library/alpine", Some("3.20")),
            image("docker.io", "library/alpine", None),
        ];
        let mut index = Index {
            images: images.clone(),
            bases: vec![Digest::sha256(b"before")],
        };
        let mut other = Index {
            images: images.into_iter().rev().collect(),
            ..index.clone()
        };
        index.sort();
        other.sort();
        assert_eq!(index.to_json().unwrap(), other.to_json().unwrap());
        assert_eq!(Index::read(&index.to_json().unwrap()).unwrap(), index);
    }

    #[test]
    fn an_image_is_chosen_by_its_tag_and_by_its_whole_name_where_several_have_the_tag() {
        let mut index = Index {
            images: vec![
                image("docker.io", "library/alpine", Some("3.20")),
                image("ghcr.io", "org/app", Some("latest")),
                image("quay.io", "org/app", Some("latest")),
                image("quay.io", "org/app", None),
            ],
            bases: Vec::new(),
        };
        index.sort();
        let names = ref_names(&index);
        let names: Vec<_> = names.iter().map(Option::as_deref).collect();
        assert_eq!(
            names,
            [
                Some("3.20"),
                Some("ghcr.io/org/app:latest"),
                None,
                Some("quay.io/org/app:latest")
            ]
        );
    }

    #[test]
    fn names_of_other_tools_are_understood() {
        let read = |annotations: &str| {
            let digest = Digest::sha256(b"x");
            let json = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1{annotations}}}]}}"#
            );
            Index::read(json.as_bytes()).unwrap().images[0]
                .named
                .clone()
        };
        let whole = |name: &str| Named::Whole(name.to_owned());
        let of = |key: &str, value: &str| read(&format!(r#","annotations":{{"{key}":"{value}"}}"#));
        assert_eq!(
            of(CONTAINERD_NAME, "docker.io/a/b:1"),
            whole("docker.io/a/b:1")
        );
        assert_eq!(of(REF_NAME, "quay.io/a/b:1"), whole("quay.io/a/b:1"));
        assert_eq!(of(REF_NAME, "3.20"), Named::Tag("3.20".to_owned()));
        assert_eq!(of(REF_NAME, ""), Named::Nothing);
        assert_eq!(read(r#","annotations":null"#), Named::Nothing);
        assert_eq!(read(""), Named::Nothing);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:0","size":1}]}"#,
            r#"{"schemaVersion":2,"manifests":[],"annotations":{"dev.layby.base":"x"}}"#,
        ] {
            let read = Index::read(json.as_bytes());
            assert!(matches!(read, Err(Fault::Document { .. })), "{json}");
        }
    }
}

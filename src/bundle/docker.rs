//! `manifest.json`: how `docker save` and `docker load` list images, by file names in the archive.

use serde::{Deserialize, Serialize};

use crate::oci::{Digest, MediaType};

use super::{DOCKER_MANIFEST, Fault, Member};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerImage {
    /// File name of its configuration.
    #[serde(rename = "Config")]
    pub config: String,
    /// Its names: `alpine:3.20`.
    #[serde(rename = "RepoTags", default, deserialize_with = "null_as_none")]
    pub tags: Vec<String>,
    /// File names of its layers, the lowest first.
    #[serde(rename = "Layers", default, deserialize_with = "null_as_none")]
    pub layers: Vec<String>,
}

/// A layer as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Whether it is compressed.
    pub is_gzip: bool,
}

/// Go writes nil lists as `null`.
fn null_as_none<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads the document.
pub fn read_docker(json: &[u8]) -> Result<Vec<DockerImage>, Fault> {
    serde_json::from_slice(json).map_err(|error| Fault::document(DOCKER_MANIFEST, &error))
}

/// Writes the document.
pub fn write_docker(images: &[DockerImage]) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(images).map_err(|error| Fault::document(DOCKER_MANIFEST, &error))
}

impl DockerImage {
    /// The files that it is made of, the configuration first.
    pub fn files(&self) -> Result<Vec<Member>, Fault> {
        let names = std::iter::once(&self.config).chain(&self.layers);
        names
            .map(|name| {
                Member::of(name.as_bytes())?.ok_or_else(|| {
                    let why = format!("it names {name:?}, which is no file of an image");
                    Fault::document(DOCKER_MANIFEST, &why)
                })
            })
            .collect()
    }
}

/// A manifest for an image that was saved without one: the same bytes for the same parts. `config` is the configuration's
/// bytes, which say what each layer has to be.
pub fn docker_manifest(config: &[u8], layers: &[DockerLayer]) -> Result<Vec<u8>, Fault> {
    let wrong = |why: &dyn std::fmt::Display| Fault::document("the configuration of an image", why);
    let said: OfConfig = serde_json::from_slice(config).map_err(|error| wrong(&error))?;
    if said.rootfs.diff_ids.len() != layers.len() {
        return Err(wrong(&format!(
            "it has {} layers, and manifest.json lists {}",
            said.rootfs.diff_ids.len(),
            layers.len()
        )));
    }
    for (diff_id, layer) in said.rootfs.diff_ids.iter().zip(layers) {
        if !layer.is_gzip && *diff_id != layer.digest {
            return Err(Fault::Damaged {
                name: format!("the layer {diff_id}"),
                found: format!("its digest is {}", layer.digest),
            });
        }
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: MediaType::DOCKER_MANIFEST,
        config: Part {
            media_type: "application/vnd.docker.container.image.v1+json",
            size: config.len() as u64,
            digest: Digest::sha256(config),
        },
        layers: layers
            .iter()
            .map(|layer| Part {
                media_type: if layer.is_gzip {
                    "application/vnd.docker.image.rootfs.diff.tar.gzip"
                } else {
                    "application/vnd.docker.image.rootfs.diff.tar"
                },
                size: layer.size,
                digest: layer.digest.clone(),
            })
            .collect(),
    };
    serde_json::to_vec(&manifest).map_err(|error| wrong(&error))
}

/// Docker's image manifest, version 2, schema 2.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Part,
    layers: Vec<Part>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: &'static str,
    size: u64,
    digest: Digest,
}

/// The part of a configuration that is read (image-spec, config.md).
#[derive(Deserialize)]
struct OfConfig {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::ManifestInfo;

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("\"{}\"", Digest::sha256(layer)))
            .collect();
        format!(
            r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        )
        .into_bytes()
    }

    fn layer(bytes: &[u8]) -> DockerLayer {
        DockerLayer {
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            is_gzip: false,
        }
    }

    #[test]
    fn a_saved_image_gets_a_manifest_that_names_what_it_is_made_of() {
        let config = config(&[b"one", b"two"]);
        let layers = [layer(b"one"), layer(b"two")];
        let manifest = docker_manifest(&config, &layers).unwrap();
        assert_eq!(manifest, docker_manifest(&config, &layers).unwrap());
        let info = ManifestInfo::parse(None, &manifest).unwrap();
        let blobs: Vec<_> = info.blobs().map(|blob| blob.digest.clone()).collect();
        let parts = [&config[..], b"one", b"two"].map(Digest::sha256);
        assert_eq!(blobs, parts);
        assert_eq!(info.media_type.as_str(), MediaType::DOCKER_MANIFEST);
    }

    #[test]
    fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
        let config = config(&[b"one"]);
        let damaged = docker_manifest(&config, &[layer(b"0ne")]);
        assert!(matches!(damaged, Err(Fault::Damaged { .. })));
        let missing = docker_manifest(&config, &[]);
        assert!(matches!(missing, Err(Fault::Document { .. })));
    }

    #[test]
    fn lists_may_be_null_and_names_may_not_lead_out() {
        let images =
            read_docker(br#"[{"Config":"a.json","RepoTags":null,"Layers":null}]"#).unwrap();
        assert_eq!(images[0].files().unwrap().len(), 1);
        let images = read_docker(br#"[{"Config":"../a.json"}]"#).unwrap();
        assert!(matches!(images[0].files(), Err(Fault::Path(_))));
    }
}

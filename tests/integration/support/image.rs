//! Images as clients pull them.

use std::net::SocketAddr;

use layby::oci::Digest;
use serde_json::json;

use super::{Request, blob_path, download, get};
use crate::fake::{Content, Fake};

/// `application/vnd.oci.image.manifest.v1+json`.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The types that upstreams are asked for (PROTOCOL 7.2).
pub(crate) const MANIFEST_TYPES: [&str; 5] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    OCI_MANIFEST,
    OCI_INDEX,
    "application/vnd.oci.artifact.manifest.v1+json",
];

/// An image for one platform.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Its configuration.
    pub(crate) config: Content,
    /// Its layers.
    pub(crate) layers: Vec<Content>,
    /// Its manifest.
    pub(crate) manifest: Content,
}

impl Image {
    /// An image with random layers of these sizes, the same for the same seed.
    pub(crate) fn new(seed: u64, layers: &[u64]) -> Self {
        let layers: Vec<_> = (0..)
            .zip(layers)
            .map(|(number, len)| Content::random(seed * 1000 + number, *len))
            .collect();
        Self::of_layers(&format!("seed {seed}"), layers)
    }

    /// An image with these layers, told from others by `name`.
    pub(crate) fn of_layers(name: &str, layers: Vec<Content>) -> Self {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "author": name,
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = Content::bytes(config.to_string());
        let described: Vec<_> = layers.iter().map(|l| descriptor(OCI_LAYER, l)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, &config),
            "layers": described,
        });
        // Indented as registries hold it: a proxy that re-encodes would show.
        let manifest = serde_json::to_string_pretty(&manifest).expect("JSON");
        Self {
            config,
            layers,
            manifest: Content::bytes(manifest),
        }
    }

    /// Puts all of it into a repository, and tags it.
    pub(crate) fn push(&self, fake: &Fake, repository: &str, tag: &str) -> Digest {
        for blob in self.blobs() {
            fake.put_blob(repository, blob);
        }
        let digest = fake.put_manifest(repository, OCI_MANIFEST, self.manifest.all());
        fake.tag(repository, tag, &digest);
        digest
    }

    /// Pulls all of it as a client does, by `tag`; fails unless everything is right.
    pub(crate) async fn pull(&self, address: SocketAddr, repository: &str, tag: &str) {
        let by_tag = Request::head(format!("/v2/{repository}/manifests/{tag}"));
        let head = by_tag.send_to(address).await.expect(200);
        let digest = head.header("docker-content-digest").expect("a digest");
        assert_eq!(digest, self.manifest.digest().as_str());
        let manifest = get(address, format!("/v2/{repository}/manifests/{digest}")).await;
        assert_eq!(manifest.expect(200).body, self.manifest.all());
        for blob in self.blobs() {
            let path = blob_path(repository, blob);
            download(address, &path).await.expect(blob);
            let part = Request::get(&path).range("1-").send_to(address).await;
            assert_eq!(part.expect(206).body, blob.read(1..blob.len()));
        }
    }

    /// Configuration and layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// An index of these images.
pub(crate) fn index_of(images: &[&Image]) -> Content {
    let manifests: Vec<_> = images
        .iter()
        .map(|image| descriptor(OCI_MANIFEST, &image.manifest))
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    Content::bytes(serde_json::to_string_pretty(&index).expect("JSON"))
}

fn descriptor(media_type: &str, content: &Content) -> serde_json::Value {
    json!({
        "mediaType": media_type,
        "digest": content.digest().as_str(),
        "size": content.len(),
    })
}

//! Images of several layers and platforms, made here and laid out for skopeo's `dir:` transport, which keeps every byte.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Size of the large layer of an image.
pub(crate) const LARGE: usize = 20 << 20;

/// What skopeo wants to read in a folder of `dir:`.
const VERSION: &str = "Directory Transport Version: 1.1\n";

/// Whose media types an image has.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    Docker,
    Oci,
}

/// An image as clients should find it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) repository: String,
    pub(crate) tag: &'static str,
    pub(crate) platforms: Vec<Platform>,
}

/// What an image is on one platform; all digests in their usual form.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    pub(crate) architecture: &'static str,
    pub(crate) manifest: String,
    pub(crate) config: String,
    pub(crate) layers: Vec<String>,
    /// Digests of the layers when unpacked.
    pub(crate) diff_ids: Vec<String>,
}

impl Image {
    /// Makes the image in `folder`, with so many bytes in its second layer.
    pub(crate) fn make(
        repository: &'static str,
        tag: &'static str,
        family: Family,
        size: usize,
        folder: &Path,
    ) -> Self {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("version"), VERSION).unwrap();
        let shared = tar("data/large", &noise(repository, size));
        let (platforms, entries): (Vec<_>, Vec<_>) = ["amd64", "arm64"]
            .into_iter()
            .map(|architecture| platform(repository, architecture, family, &shared, folder))
            .unzip();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": family.index(),
            "manifests": entries,
        });
        fs::write(folder.join("manifest.json"), index.to_string()).unwrap();
        Self {
            repository: repository.to_owned(),
            tag,
            platforms,
        }
    }

    /// Makes an image for this machine alone in `folder`, from layers given by their seeds and sizes, which are as large on
    /// the wire as unpacked.
    pub(crate) fn of_layers(
        repository: String,
        tag: &'static str,
        layers: &[(String, usize)],
        folder: &Path,
    ) -> Self {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("version"), VERSION).unwrap();
        let layers = layers.iter().map(|(seed, size)| {
            let tar = tar(&format!("data/{seed}"), &noise(seed, *size));
            let media_type = "application/vnd.oci.image.layer.v1.tar";
            (digest(&tar), put(folder, "", media_type, &tar))
        });
        let (diff_ids, layers): (Vec<_>, Vec<_>) = layers.unzip();
        let (platform, manifest) =
            of_platform(own_architecture(), Family::Oci, diff_ids, &layers, folder);
        fs::write(folder.join("manifest.json"), manifest).unwrap();
        Self {
            repository,
            tag,
            platforms: vec![platform],
        }
    }

    /// `repository:tag`.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// The platform that clients here take by themselves.
    pub(crate) fn own(&self) -> &Platform {
        self.platforms
            .iter()
            .find(|platform| platform.architecture == own_architecture())
            .expect("images are made for the two platforms that tests run on")
    }
}

/// The architecture of this machine.
fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

impl Platform {
    /// The configuration and the layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &String> {
        [&self.config].into_iter().chain(&self.layers)
    }
}

impl Family {
    fn index(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::Oci => "application/vnd.oci.image.index.v1+json",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.container.image.v1+json",
            Self::Oci => "application/vnd.oci.image.config.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

/// Three layers, of which the second, `shared` and large, is that of every platform; its entry in the index.
fn platform(
    repository: &str,
    architecture: &'static str,
    family: Family,
    shared: &[u8],
    folder: &Path,
) -> (Platform, Value) {
    let first = tar(
        "etc/image",
        format!("{repository} {architecture}").as_bytes(),
    );
    let last = tar(
        "data/small",
        &noise(&format!("{repository} {architecture}"), 40_000),
    );
    let tars = [&first, shared, &last];
    let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar)).collect();
    let layers: Vec<Value> = tars
        .iter()
        .map(|tar| put(folder, "", family.layer(), &gzip(tar)))
        .collect();
    let (platform, manifest) = of_platform(architecture, family, diff_ids, &layers, folder);
    let mut entry = put(
        folder,
        ".manifest.json",
        family.manifest(),
        manifest.as_bytes(),
    );
    entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
    (platform, entry)
}

/// An image of these layers, whose configuration is put into the folder; its manifest, which is not.
fn of_platform(
    architecture: &'static str,
    family: Family,
    diff_ids: Vec<String>,
    layers: &[Value],
    folder: &Path,
) -> (Platform, String) {
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": { "Cmd": ["/bin/none"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": diff_ids.iter().map(|_| json!({ "created_by": "a test" })).collect::<Value>(),
    });
    let config = put(folder, "", family.config(), config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": family.manifest(),
        "config": config,
        "layers": layers,
    })
    .to_string();
    let digest_in = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    let platform = Platform {
        architecture,
        manifest: digest(manifest.as_bytes()),
        config: digest_in(&config),
        layers: layers.iter().map(digest_in).collect(),
        diff_ids,
    };
    (platform, manifest)
}

/// Writes content under its digest, and returns its descriptor.
fn put(folder: &Path, suffix: &str, media_type: &str, content: &[u8]) -> Value {
    let digest = digest(content);
    let name = digest.trim_start_matches("sha256:");
    fs::write(folder.join(format!("{name}{suffix}")), content).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
}

/// An archive of one file.
fn tar(path: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, path, content).unwrap();
    archive.into_inner().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same ones for the same `seed`.
fn noise(seed: &str, len: usize) -> Vec<u8> {
    let seed = seed.bytes().fold(7, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// `sha256:…` of some content.
pub(crate) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", const_hex::encode(Sha256::digest(content)))
}

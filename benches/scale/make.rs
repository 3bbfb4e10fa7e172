//! Makes a data directory of a given size, as pulls would have left it: every file is what its name says.

use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use layby::oci::{Digest, MediaType};
use serde_json::json;

/// The upstream that everything came from.
pub(crate) const UPSTREAM: &str = "registry.test";

/// Blobs of an image: its manifest, its configuration, its layers.
const BLOBS_OF_IMAGE: u64 = 10;
/// Tags of a repository.
const TAGS: u64 = 100;

/// What was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) blobs: u64,
    pub(crate) tags: u64,
    /// Some blob, as a request names it, and its bytes.
    pub(crate) blob: (String, Vec<u8>),
    /// Some tag, as a request names it, and the bytes of its manifest.
    pub(crate) tag: (String, Vec<u8>),
}

/// An image whose blobs no other has.
struct Image {
    repository: String,
    tag: String,
    parts: Vec<(Digest, Vec<u8>)>,
    manifest: (Digest, Vec<u8>),
}

impl Image {
    fn new(number: u64) -> Self {
        let blob = |part: u64| {
            let bytes = format!("part {part} of image {number}").into_bytes();
            (Digest::sha256(&bytes), bytes)
        };
        let parts: Vec<_> = (0..BLOBS_OF_IMAGE - 1).map(blob).collect();
        let described = |media_type: &str, (digest, bytes): &(Digest, Vec<u8>)| json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<_> = parts[1..]
            .iter()
            .map(|part| described(layer, part))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": described("application/vnd.oci.image.config.v1+json", &parts[0]),
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        Self {
            repository: format!("org/app{}", number / TAGS),
            tag: format!("v{}", number % TAGS),
            parts,
            manifest: (Digest::sha256(&manifest), manifest),
        }
    }

    fn write(&self, data: &Path, now: &str) -> io::Result<()> {
        let refs = data.join("refs").join(UPSTREAM).join(&self.repository);
        let (tags, manifests, proofs) = (
            refs.join("_tags"),
            refs.join("_manifests"),
            refs.join("_blobs"),
        );
        if self.tag == "v0" {
            for dir in [&tags, &manifests, &proofs] {
                fs::create_dir_all(dir)?;
            }
        }
        for (digest, bytes) in self.parts.iter().chain([&self.manifest]) {
            fs::write(blob_path(data, digest), bytes)?;
        }
        for (digest, _) in &self.parts {
            fs::write(proofs.join(digest.as_str()), "")?;
        }
        let (digest, bytes) = &self.manifest;
        let manifest = json!({ "media_type": MediaType::OCI_MANIFEST, "size": bytes.len() });
        let tag = json!({
            "digest": digest,
            "media_type": MediaType::OCI_MANIFEST,
            "size": bytes.len(),
            "fetched": now,
            "validated": now,
        });
        fs::write(
            manifests.join(format!("{digest}.json")),
            manifest.to_string(),
        )?;
        fs::write(tags.join(format!("{}.json", self.tag)), tag.to_string())
    }
}

/// Makes the directory `data` with so many blobs, a multiple of a thousand, and a tenth as many tags.
pub(crate) fn make(data: &Path, blobs: u64) -> io::Result<Made> {
    let repositories = (blobs / (BLOBS_OF_IMAGE * TAGS)).max(1);
    for number in 0..=u8::MAX {
        fs::create_dir_all(data.join(format!("blobs/sha256/{number:02x}")))?;
    }
    let identity = json!({ "format": 1, "instance": "5ca1e" });
    fs::write(data.join("layby.json"), identity.to_string())?;
    let now = jiff::Timestamp::now().to_string();
    let next = AtomicU64::new(0);
    let work = || -> io::Result<()> {
        loop {
            let repository = next.fetch_add(1, Ordering::Relaxed);
            if repository >= repositories {
                return Ok(());
            }
            for number in repository * TAGS..(repository + 1) * TAGS {
                Image::new(number).write(data, &now)?;
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.map_err(|_| io::Error::other("a thread that makes files panicked"))?
        })
    })?;
    let images = repositories * TAGS;
    let some = Image::new(images / 2);
    let (digest, bytes) = &some.parts[1];
    Ok(Made {
        blobs: images * BLOBS_OF_IMAGE,
        tags: images,
        blob: (
            format!("/v2/{}/blobs/{digest}", some.repository),
            bytes.clone(),
        ),
        tag: (
            format!("/v2/{}/manifests/{}", some.repository, some.tag),
            some.manifest.1,
        ),
    })
}

fn blob_path(data: &Path, digest: &Digest) -> PathBuf {
    let encoded = digest.encoded();
    data.join("blobs/sha256").join(&encoded[..2]).join(encoded)
}

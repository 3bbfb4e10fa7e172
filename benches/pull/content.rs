//! What is pulled: blobs that cost nothing to send, and manifests.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The repository of everything here.
pub(crate) const REPOSITORY: &str = "bench/app";

/// The media type of a manifest that all registries know.
pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Bytes with a name.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    /// `sha256:…`
    pub(crate) digest: String,
    pub(crate) media_type: &'static str,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    /// Sixteen bytes that no other has, and then the noise over and over.
    Noise {
        stamp: [u8; 16],
        len: u64,
    },
    Bytes(Arc<[u8]>),
}

impl Content {
    /// A blob of `len` bytes, sixteen at least, that differs from those of other numbers.
    pub(crate) fn noise(number: u64, len: u64) -> Self {
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&number.to_le_bytes());
        stamp[8..].copy_from_slice(&len.to_le_bytes());
        let mut content = Self {
            digest: String::new(),
            media_type: "application/octet-stream",
            body: Body::Noise { stamp, len },
        };
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < len {
            let piece = content.piece(at..len);
            hasher.update(piece);
            at += piece.len() as u64;
        }
        content.digest = name(&hasher.finalize());
        content
    }

    pub(crate) fn bytes(bytes: Vec<u8>, media_type: &'static str) -> Self {
        Self {
            digest: digest(&bytes),
            media_type,
            body: Body::Bytes(bytes.into()),
        }
    }

    /// A manifest of about a thousand bytes that names blobs which nobody asks for.
    pub(crate) fn manifest() -> Self {
        let descriptor = |number: u64| {
            json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": 1_000_000 + number,
                "digest": digest(&number.to_le_bytes()),
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": 1_000,
                "digest": digest(b"configuration"),
            },
            "layers": (0..4).map(descriptor).collect::<Vec<_>>(),
        });
        Self::bytes(manifest.to_string().into_bytes(), MANIFEST)
    }

    pub(crate) fn len(&self) -> u64 {
        match &self.body {
            Body::Noise { len, .. } => *len,
            Body::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Bytes from the start of `range` on, as many as lie together, none behind its end.
    pub(crate) fn piece(&self, range: Range<u64>) -> &[u8] {
        let most = range.end.saturating_sub(range.start) as usize;
        let piece = match &self.body {
            Body::Bytes(bytes) => &bytes[range.start as usize..],
            Body::Noise { stamp, .. } => match usize::try_from(range.start) {
                Ok(at) if at < stamp.len() => &stamp[at..],
                _ => &noise()[((range.start - 16) % NOISE as u64) as usize..],
            },
        };
        &piece[..piece.len().min(most)]
    }

    /// The path under which it is pulled as a blob.
    pub(crate) fn blob_path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }

    /// The path under which it is pulled as a manifest, by its digest or by a tag.
    pub(crate) fn manifest_path(&self, tag: Option<&str>) -> String {
        let reference = tag.unwrap_or(&self.digest);
        format!("/v2/{REPOSITORY}/manifests/{reference}")
    }

    /// Writes it as a file, for a server of files; `path` is the one that it is asked by.
    pub(crate) fn write(&self, root: &Path, path: &str) -> io::Result<()> {
        let file = root.join(path.trim_start_matches('/'));
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(file)?;
        let mut at = 0;
        while at < self.len() {
            let piece = self.piece(at..self.len());
            file.write_all(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// The name of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    name(&Sha256::digest(bytes))
}

/// The name of what was hashed.
pub(crate) fn name(hash: &[u8]) -> String {
    format!("sha256:{}", const_hex::encode(hash))
}

/// Size of the noise: larger than what processors keep near them.
const NOISE: usize = 64 << 20;

/// Bytes without order, the same at every run.
fn noise() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(0x4C61_7962_7900);
        let mut bytes = vec![0; NOISE];
        random.fill(&mut bytes);
        bytes
    })
}

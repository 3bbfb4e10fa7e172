//! The data directory, looked at from outside.

use std::path::{Path, PathBuf};

use layby::oci::{Algorithm, Digest, Hasher};

/// The digests of all committed blobs.
pub(crate) fn committed(data: &Path) -> Vec<Digest> {
    let mut found: Vec<_> = blobs(data).into_iter().map(|(digest, _)| digest).collect();
    found.sort();
    found
}

/// Fails unless every committed blob holds what its name says; returns how many there are.
pub(crate) fn verify_committed(data: &Path) -> usize {
    let blobs = blobs(data);
    for (digest, path) in &blobs {
        let bytes = std::fs::read(path).expect("a blob can be read");
        let mut hasher = match digest.algorithm() {
            Algorithm::Sha512 => Hasher::new(Algorithm::Sha512),
            _ => Hasher::new(Algorithm::Sha256),
        }
        .expect("can be computed");
        hasher.update(&bytes);
        assert_eq!(hasher.finish(), *digest, "{} was committed", path.display());
    }
    blobs.len()
}

fn blobs(data: &Path) -> Vec<(Digest, PathBuf)> {
    let mut found = Vec::new();
    for algorithm in children(&data.join("blobs")) {
        let name = algorithm.file_name().unwrap_or_default().to_owned();
        for path in children(&algorithm)
            .iter()
            .flat_map(|shard| children(shard))
        {
            let encoded = path.file_name().unwrap_or_default().to_string_lossy();
            let text = format!("{}:{encoded}", name.to_string_lossy());
            found.push((text.parse().expect("a blob's name"), path));
        }
    }
    found
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

//! Which exports were imported here, so that a later one can build on them, and on nothing else.
//!
//! Naming is not owning: an archive may say that it builds on anything. What it may take from the cache is what an import of
//! that export has brought and its repositories still have.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tracing::warn;

use crate::oci::{Digest, ManifestInfo, Reference};
use crate::proxy::Place;
use crate::proxy::admin::names::ImageName;
use crate::proxy::admin::walk;
use crate::store::{MAX_REF_LEN, Note, Store};

use super::halt::Halt;
use super::whole::Whole;

/// The exports that an archive builds on.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// As it says: digests of their `index.json`.
    pub(super) claimed: Vec<Digest>,
    /// What those of them that were imported here have brought.
    brought: HashSet<Digest>,
}

/// `imports.json`.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// The latest is the last.
    imports: VecDeque<Import>,
}

/// An archive that was imported.
#[derive(Serialize, Deserialize)]
struct Import {
    /// Digest of its `index.json`.
    index: Digest,
    /// Its images, each as `upstream/repository@digest`.
    images: Vec<String>,
}

impl Bases {
    /// Looks at what was imported, if `claimed` asks for that. `go_on` is asked for each manifest. Blocks.
    pub(super) fn of(
        store: &Store,
        claimed: &[Digest],
        go_on: &mut dyn FnMut() -> Result<(), Halt>,
    ) -> Result<Self, Halt> {
        let mut bases = Self {
            claimed: claimed.to_vec(),
            brought: HashSet::new(),
        };
        if claimed.is_empty() {
            return Ok(bases);
        }
        let imports = kept(store)?.imports;
        for import in imports.iter().filter(|one| claimed.contains(&one.index)) {
            for image in import.images.iter().filter_map(|text| text.parse().ok()) {
                go_on()?;
                bases.add(store, &image)?;
            }
        }
        Ok(bases)
    }

    /// Adds what the image leads to and its repository has.
    fn add(&mut self, store: &Store, image: &ImageName) -> io::Result<()> {
        let ImageName { place, reference } = image;
        let Reference::Digest(top) = reference else {
            return Ok(());
        };
        walk::each_manifest(store, top, None, &mut |node| {
            if walk::is_proven(store, place, &node.digest)? {
                for blob in node.info.iter().flat_map(ManifestInfo::blobs) {
                    if walk::is_proven(store, place, &blob.digest)? {
                        self.brought.insert(blob.digest.clone());
                    }
                }
                self.brought.insert(node.digest);
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Whether a repository may have a blob that the archive does not bring.
    pub(super) fn lend(&self, store: &Store, place: &Place, digest: &Digest) -> io::Result<bool> {
        if self.claimed.is_empty() {
            return Ok(false);
        }
        Ok(self.brought.contains(digest) || walk::is_proven(store, place, digest)?)
    }
}

/// Notes that an archive was imported, so that others can build on it. Durable on return; blocks.
pub(super) fn note(
    store: &Store,
    runtime: &Handle,
    index: &Digest,
    wholes: &[Whole],
) -> io::Result<()> {
    let mut kept = kept(store)?;
    kept.imports.retain(|one| one.index != *index);
    let mut seen = HashSet::new();
    let named = wholes.iter().map(|whole| ImageName {
        place: whole.name.place.clone(),
        reference: Reference::Digest(whole.digest.clone()),
    });
    let images = named.map(|name| name.to_string());
    kept.imports.push_back(Import {
        index: index.clone(),
        images: images.filter(|text| seen.insert(text.clone())).collect(),
    });
    loop {
        let bytes = serde_json::to_vec(&kept).map_err(io::Error::from)?;
        if bytes.len() as u64 <= MAX_REF_LEN {
            return runtime.block_on(store.put_note(Note::Imports, bytes));
        }
        // The oldest half: whoever builds on them is told to import them again.
        let half = kept.imports.len().div_ceil(2);
        kept.imports.drain(..half);
    }
}

fn kept(store: &Store) -> io::Result<Kept> {
    let Some(bytes) = store.get_note(Note::Imports)? else {
        return Ok(Kept::default());
    };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        warn!(%error, "imports.json is damaged: what builds on an earlier export needs that to be imported again");
        Kept::default()
    }))
}

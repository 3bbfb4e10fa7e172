//! What an image is made of, as far as it is here whole. Blocks.

use std::collections::{BTreeMap, HashSet};
use std::io;

use crate::oci::{Descriptor, Digest, ManifestInfo, ManifestKind, MediaType};
use crate::proxy::Place;
use crate::proxy::admin::describe::written;
use crate::proxy::admin::walk;
use crate::proxy::manifests::EMPTY;
use crate::proxy::ports::MAX_MANIFEST;
use crate::store::Store;

/// An image, or as much of one as there is of some of its platforms.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Digest and length of each manifest.
    pub(super) manifests: BTreeMap<Digest, u64>,
    /// Digest and length of all else.
    pub(super) others: BTreeMap<Digest, u64>,
    /// Of the manifests, those that an index leads to.
    pub(super) listed: Vec<Digest>,
    /// What they run on.
    pub(super) platforms: Vec<String>,
    /// What is listed and not here whole.
    pub(super) absent: Vec<String>,
    /// Those of them that run on something, by what they name.
    pub(super) runnable: Vec<Runnable>,
}

/// A manifest that names a configuration and layers.
#[derive(Debug, Clone)]
pub(super) struct Runnable {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// Looks for what images are made of.
pub(super) struct Finder<'a> {
    pub(super) store: &'a Store,
    pub(super) place: &'a Place,
}

/// What is missing of an image.
type Lack = String;

impl Finder<'_> {
    /// The image, or why there is none to be exported.
    pub(super) fn find(
        &self,
        digest: &Digest,
        media_type: Option<&MediaType>,
    ) -> io::Result<Result<(Parts, ManifestInfo), Lack>> {
        let mut parts = Parts::default();
        let mut seen = HashSet::new();
        let found = self.collect(digest, media_type, DEPTH, &mut seen, &mut parts)?;
        Ok(found.map(|info| {
            parts.listed.sort();
            parts.listed.dedup();
            (parts, info)
        }))
    }

    fn collect(
        &self,
        digest: &Digest,
        media_type: Option<&MediaType>,
        depth: u32,
        seen: &mut HashSet<Digest>,
        parts: &mut Parts,
    ) -> io::Result<Result<ManifestInfo, Lack>> {
        let Some(bytes) = self.store.peek_blob(digest, MAX_MANIFEST)? else {
            return Ok(Err(format!("the manifest {digest} is not here")));
        };
        if !walk::is_proven(self.store, self.place, digest)? {
            return Ok(Err(unproven(digest)));
        }
        let info = match ManifestInfo::parse(media_type, &bytes) {
            Ok(info) => info,
            Err(error) => return Ok(Err(format!("the manifest {digest} is {error}"))),
        };
        parts.manifests.insert(digest.clone(), bytes.len() as u64);
        seen.insert(digest.clone());
        let lack = match &info.kind {
            ManifestKind::Index { manifests } => self.children(manifests, depth, seen, parts)?,
            _ => self.blobs(&info, parts)?,
        };
        if let ManifestKind::Image { config, layers } = &info.kind {
            parts.runnable.push(Runnable {
                config: (**config).clone(),
                layers: layers.clone(),
            });
        }
        Ok(lack.map_or(Ok(info), Err))
    }

    /// Takes in those that are here whole; what is missing, where none that runs on something is.
    fn children(
        &self,
        listed: &[Descriptor],
        depth: u32,
        seen: &mut HashSet<Digest>,
        parts: &mut Parts,
    ) -> io::Result<Option<Lack>> {
        let mut first_lack = None;
        let mut is_any = false;
        for child in listed {
            if seen.contains(&child.digest) {
                continue;
            }
            let mut of_child = Parts::default();
            let media_type = child.media_type.as_deref().and_then(MediaType::parse);
            let found = match depth.checked_sub(1) {
                Some(depth) => self.collect(
                    &child.digest,
                    media_type.as_ref(),
                    depth,
                    seen,
                    &mut of_child,
                )?,
                None => Err("its indexes lead to indexes too often".to_owned()),
            };
            let runs_on = child.platform.as_ref().filter(|on| on.os != "unknown");
            let name = child.platform.as_ref().map(written);
            match found {
                Ok(_) => {
                    is_any |= runs_on.is_some() || child.platform.is_none();
                    let is_told = runs_on.is_some() && of_child.platforms.is_empty();
                    parts.platforms.extend(name.filter(|_| is_told));
                    if child.platform.is_some() && runs_on.is_none() {
                        // An attestation: not for docker load.
                        of_child.runnable.clear();
                    }
                    parts.listed.push(child.digest.clone());
                    parts.extend(of_child);
                }
                Err(lack) => {
                    first_lack = first_lack.or(Some(lack));
                    parts
                        .absent
                        .push(name.unwrap_or_else(|| child.digest.to_string()));
                }
            }
        }
        let none = || "its index lists nothing".to_owned();
        Ok((!is_any).then(|| first_lack.unwrap_or_else(none)))
    }

    fn blobs(&self, info: &ManifestInfo, parts: &mut Parts) -> io::Result<Option<Lack>> {
        for blob in info.blobs() {
            // Clients know the empty object, and layers with their own URLs are not the registry's to have.
            let is_needed = blob.digest.as_str() != EMPTY && blob.urls.is_empty();
            let is_here = self.store.blob_len(&blob.digest)? == Some(blob.size);
            if is_here && walk::is_proven(self.store, self.place, &blob.digest)? {
                parts.others.insert(blob.digest.clone(), blob.size);
            } else if is_needed {
                return Ok(Some(if is_here {
                    unproven(&blob.digest)
                } else {
                    format!("the blob {} is not here", blob.digest)
                }));
            }
        }
        Ok(None)
    }
}

impl Parts {
    fn extend(&mut self, other: Self) {
        self.manifests.extend(other.manifests);
        self.others.extend(other.others);
        self.listed.extend(other.listed);
        self.platforms.extend(other.platforms);
        self.absent.extend(other.absent);
        self.runnable.extend(other.runnable);
    }
}

fn unproven(digest: &Digest) -> String {
    format!(
        "{digest} is here, but its upstream has not said yet that it belongs to this repository"
    )
}

/// Indexes within indexes that are followed.
const DEPTH: u32 = 4;

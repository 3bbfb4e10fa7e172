//! Whether an image could be pulled from here alone.

use std::io;
use std::sync::Arc;

use crate::flight::ports::BoxFuture;
use crate::oci::{Descriptor, Digest, ManifestInfo, ManifestKind};
use crate::store::RefKind;

use super::{Held, Manifests, Place};

/// Most records that one check reads. An image that needs more counts as incomplete.
const BUDGET: u32 = 2048;

/// Indexes within indexes that are followed.
const DEPTH: u32 = 3;

/// The empty JSON object, which clients know and do not fetch (image-spec, manifest.md, "Guidance for an Empty
/// Descriptor").
pub(in crate::proxy) const EMPTY: &str =
    "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

impl Manifests {
    /// Whether everything that one platform of the image needs is stored, and proven to belong to the repository.
    pub(in crate::proxy) async fn complete(&self, place: &Place, held: &Held) -> bool {
        let mut left = BUDGET;
        self.has_image(place, held, &mut left, DEPTH)
            .await
            .unwrap_or(false)
    }

    /// `Ok(false)`, or an error where the disk failed or the budget is spent: no answer is "incomplete" too.
    fn has_image<'a>(
        &'a self,
        place: &'a Place,
        held: &'a Held,
        left: &'a mut u32,
        depth: u32,
    ) -> BoxFuture<'a, io::Result<bool>> {
        Box::pin(async move {
            let Ok(info) = ManifestInfo::parse(Some(&held.media_type), &held.bytes) else {
                // Nothing is known of what it needs.
                return Ok(true);
            };
            if !matches!(info.kind, ManifestKind::Index { .. }) {
                return self.has_all(place, info.blobs(), left).await;
            }
            let Some(depth) = depth.checked_sub(1) else {
                return Ok(false);
            };
            for child in info.manifests().iter().filter(|child| runs(child)) {
                if let Some(child) = self.child(place, &child.digest, left).await?
                    && self.has_image(place, &child, left, depth).await?
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    async fn child(
        &self,
        place: &Place,
        digest: &Digest,
        left: &mut u32,
    ) -> io::Result<Option<Arc<Held>>> {
        spend(left)?;
        Ok(self.peek(place, digest).await)
    }

    async fn has_all<'a>(
        &self,
        place: &Place,
        needed: impl Iterator<Item = &'a Descriptor> + Send,
        left: &mut u32,
    ) -> io::Result<bool> {
        for blob in needed {
            // Layers with their own URLs are not the registry's to have.
            if blob.digest.as_str() == EMPTY || !blob.urls.is_empty() {
                continue;
            }
            spend(left)?;
            let proof = place.key(RefKind::Blob(blob.digest.clone()));
            let records = &self.ctx.records;
            if records.get(&proof).await?.is_none()
                || records.blob_len(&blob.digest).await?.is_none()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether it is something to run: builders list attestations as images for no platform.
fn runs(child: &Descriptor) -> bool {
    let platform = child.platform.as_ref();
    platform.is_none_or(|platform| platform.os != "unknown")
}

fn spend(left: &mut u32) -> io::Result<()> {
    *left = left
        .checked_sub(1)
        .ok_or_else(|| io::Error::other("too many parts to check"))?;
    Ok(())
}

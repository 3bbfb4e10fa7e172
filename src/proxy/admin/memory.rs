//! What a running proxy remembers of the disk, and has to forget when administration changes it.

use std::sync::Arc;

use crate::oci::{Digest, Tag};
use crate::proxy::Place;
use crate::proxy::manifests::Manifests;
use crate::proxy::membership::Membership;
use crate::proxy::tags::Tags;

/// The memories of a running proxy; none on a data directory at rest.
#[derive(Clone, Default)]
pub(in crate::proxy) struct Memory(Option<Parts>);

#[derive(Clone)]
struct Parts {
    tags: Arc<Tags>,
    manifests: Arc<Manifests>,
    membership: Arc<Membership>,
}

impl Memory {
    /// The memories of a running proxy.
    pub(in crate::proxy) fn of(
        tags: &Arc<Tags>,
        manifests: &Arc<Manifests>,
        membership: &Arc<Membership>,
    ) -> Self {
        Self(Some(Parts {
            tags: Arc::clone(tags),
            manifests: Arc::clone(manifests),
            membership: Arc::clone(membership),
        }))
    }

    pub(super) fn forget_tag(&self, place: &Place, tag: &Tag) {
        if let Some(parts) = &self.0 {
            parts.tags.forget(place, tag);
        }
    }

    /// Forgets that a repository has something.
    pub(super) fn forget_content(&self, place: &Place, digest: &Digest) {
        if let Some(parts) = &self.0 {
            parts.manifests.forget(place, digest);
            parts.membership.forget(place, digest);
        }
    }

    /// Forgets the proof that a repository has something. A manifest in memory has its own right to be there.
    pub(super) fn forget_proof(&self, place: &Place, digest: &Digest) {
        if let Some(parts) = &self.0 {
            parts.membership.forget(place, digest);
        }
    }

    /// Forgets the bytes of a manifest, whoever has it.
    pub(super) fn forget_bytes(&self, digest: &Digest) {
        if let Some(parts) = &self.0 {
            parts.manifests.forget_bytes(digest);
        }
    }
}

//! Which blobs images share, of millions.

use std::io;
use std::ops::ControlFlow;

use crate::oci::{Digest, DigestMap};
use crate::store::Store;

use super::walk;

pub(super) use crate::oci::DigestSet;

/// Which blobs more than one image leads to.
#[derive(Debug, Default)]
pub(super) struct Sharing(DigestMap<u32>);

/// In place of an image's number: several.
const SEVERAL: u32 = u32::MAX;

impl Sharing {
    /// Reads the manifests of all images. Blocks for as long as they are many.
    pub(super) fn of(store: &Store) -> io::Result<Self> {
        let mut sharing = Self::default();
        let mut number = 0_u32;
        walk::each_image(store, None, &mut |image| {
            image.each_part(store, &mut |digest| sharing.note(digest, number))?;
            number = number.saturating_add(1).min(SEVERAL - 1);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(sharing)
    }

    fn note(&mut self, digest: &Digest, image: u32) {
        self.0
            .entry(digest.into())
            .and_modify(|owner| {
                if *owner != image {
                    *owner = SEVERAL;
                }
            })
            .or_insert(image);
    }

    /// Whether several images lead to it.
    pub(super) fn is_shared(&self, digest: &Digest) -> bool {
        self.0.get(&digest.into()) == Some(&SEVERAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_images_lead_to_is_shared() {
        let (one, both) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let mut sharing = Sharing::default();
        sharing.note(&one, 0);
        sharing.note(&one, 0);
        sharing.note(&both, 0);
        sharing.note(&both, 7);
        assert!(!sharing.is_shared(&one) && sharing.is_shared(&both));
    }
}

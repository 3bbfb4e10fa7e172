//! Sets of digests that may have millions of members.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::ops::ControlFlow;

use crate::oci::Digest;
use crate::store::Store;

use super::walk;

/// Digests by their first eight bytes, at some sixteen bytes each. It holds what was put in; that it holds something
/// else is as likely as two of a million random numbers of 64 bits being the same, and costs no more than a blob that
/// is kept for nothing or a size that is told wrong.
#[derive(Debug, Default)]
pub(super) struct DigestSet(HashSet<u64, BuildHasherDefault<Unhashed>>);

impl DigestSet {
    /// Puts a digest in; whether it is new.
    pub(super) fn insert(&mut self, digest: &Digest) -> bool {
        self.0.insert(short(digest))
    }

    /// Whether it is in.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(&short(digest))
    }

    /// How many are in.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is in.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which blobs more than one image leads to.
#[derive(Debug, Default)]
pub(super) struct Sharing(HashMap<u64, u32, BuildHasherDefault<Unhashed>>);

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
            .entry(short(digest))
            .and_modify(|owner| {
                if *owner != image {
                    *owner = SEVERAL;
                }
            })
            .or_insert(image);
    }

    /// Whether several images lead to it.
    pub(super) fn is_shared(&self, digest: &Digest) -> bool {
        self.0.get(&short(digest)) == Some(&SEVERAL)
    }
}

fn short(digest: &Digest) -> u64 {
    let start = digest.encoded().get(..16).unwrap_or_default();
    u64::from_str_radix(start, 16).unwrap_or_default()
}

/// Takes a number that is as good as random for its own hash.
#[derive(Debug, Default)]
pub(super) struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let mut set = DigestSet::default();
        for number in 0..10_000_u32 {
            assert!(set.insert(&Digest::sha256(&number.to_le_bytes())));
        }
        for number in 0..20_000_u32 {
            let digest = Digest::sha256(&number.to_le_bytes());
            assert_eq!(set.contains(&digest), number < 10_000);
        }
        assert_eq!(set.len(), 10_000);
    }

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

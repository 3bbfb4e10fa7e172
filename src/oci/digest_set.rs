//! Sets and maps of digests that may have millions of members.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::Digest;

/// The first eight bytes of a digest.
///
/// Two digests that share them are as likely as two of a million random numbers of 64 bits being the same. So this may
/// stand for a digest where a mix-up costs no more than a blob that is kept for nothing or a size that is told wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortDigest(u64);

impl ShortDigest {
    /// Of a digest's bytes.
    pub fn of_bytes(start: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(start))
    }
}

impl From<&Digest> for ShortDigest {
    fn from(digest: &Digest) -> Self {
        let start = digest.encoded().get(..16).unwrap_or_default();
        Self(u64::from_str_radix(start, 16).unwrap_or_default())
    }
}

/// Values by digest, at some sixteen bytes each besides the value.
pub type DigestMap<V> = HashMap<ShortDigest, V, BuildHasherDefault<Unhashed>>;

/// Digests by their first eight bytes, at some sixteen bytes each.
#[derive(Debug, Clone, Default)]
pub struct DigestSet(HashSet<ShortDigest, BuildHasherDefault<Unhashed>>);

impl DigestSet {
    /// Puts a digest in; whether it is new.
    pub fn insert(&mut self, digest: &Digest) -> bool {
        self.0.insert(digest.into())
    }

    /// Puts in what another set holds.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// Whether it is in.
    pub fn contains(&self, digest: impl Into<ShortDigest>) -> bool {
        self.0.contains(&digest.into())
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Takes a number that is as good as random for its own hash.
#[derive(Debug, Default)]
pub struct Unhashed(u64);

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
    fn a_digest_is_short_in_one_way_whether_from_its_text_or_its_bytes() {
        let digest = Digest::sha256(b"x");
        let start = const_hex::decode_to_array(&digest.encoded()[..16]).unwrap();
        assert_eq!(ShortDigest::from(&digest), ShortDigest::of_bytes(start));
    }
}

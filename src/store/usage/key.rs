//! A digest in few bytes: there may be millions.

use crate::oci::{Algorithm, Digest, ShortDigest};

/// The bytes of a digest that can be verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// All of a SHA-256 digest, the first half of a SHA-512 one.
    pub(super) start: [u8; 32],
    /// The second half of a SHA-512 digest.
    pub(super) rest: Option<Box<[u8; 32]>>,
}

impl Key {
    /// `None` for a digest that cannot be verified, which is never stored.
    pub(super) fn of(digest: &Digest) -> Option<Self> {
        let encoded = digest.encoded();
        match digest.algorithm() {
            Algorithm::Sha256 => Some(Self {
                start: const_hex::decode_to_array(encoded).ok()?,
                rest: None,
            }),
            Algorithm::Sha512 => {
                let (start, rest) = encoded.split_at_checked(64)?;
                Some(Self {
                    start: const_hex::decode_to_array(start).ok()?,
                    rest: Some(Box::new(const_hex::decode_to_array(rest).ok()?)),
                })
            }
            Algorithm::Other => None,
        }
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        let start = const_hex::encode(self.start);
        let text = match &self.rest {
            None => format!("sha256:{start}"),
            Some(rest) => format!("sha512:{start}{}", const_hex::encode(&rest[..])),
        };
        text.parse().ok()
    }
}

/// What stands for a blob where a mix-up does no harm.
pub(super) fn short(start: &[u8; 32]) -> ShortDigest {
    let mut first = [0; 8];
    first.copy_from_slice(&start[..8]);
    ShortDigest::of_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_digest_in_other_words() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x").unwrap();
            let key = Key::of(&digest).unwrap();
            assert_eq!(key.digest(), Some(digest.clone()));
            assert_eq!(short(&key.start), ShortDigest::from(&digest));
        }
        assert_eq!(Key::of(&"other:abc".parse().unwrap()), None);
    }
}

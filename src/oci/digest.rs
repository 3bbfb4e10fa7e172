//! Content digests: `algorithm:encoded` (image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

/// Hash algorithm of a [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: 64 lower-case hexadecimal digits.
    Sha256,
    /// SHA-512: 128 lower-case hexadecimal digits.
    Sha512,
    /// Any other name that fits the grammar. Its content cannot be verified, so it is never stored.
    Other,
}

/// A content digest that fits the grammar of the image specification.
///
/// For the registered algorithms the encoded part has exactly the right length and is lower-case hexadecimal, so it is
/// safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Box<str>,
    /// Position of the colon.
    colon: u16,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:encoded`, or a part holds characters outside the grammar.
    #[error("a digest is written algorithm:encoded, such as sha256:<64 hexadecimal digits>")]
    Grammar,
    /// A registered algorithm with an encoded part of the wrong length or alphabet.
    #[error("{0} needs exactly {1} lower-case hexadecimal digits")]
    Encoded(&'static str, usize),
}

/// Longest digest that is taken; a bound for keys and logs, well above every algorithm in use.
const MAX_LEN: usize = 512;

impl Digest {
    /// Digest of `bytes` under `algorithm`; `None` for an algorithm that Layby cannot compute.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let mut hasher = Hasher::new(algorithm)?;
        hasher.update(bytes);
        Some(hasher.finish())
    }

    /// SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_parts("sha256", &const_hex::encode(Sha256::digest(bytes)))
    }

    fn from_parts(algorithm: &str, encoded: &str) -> Self {
        let colon = u16::try_from(algorithm.len()).unwrap_or(u16::MAX);
        Self {
            text: format!("{algorithm}:{encoded}").into(),
            colon,
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.algorithm_name() {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => Algorithm::Other,
        }
    }

    /// The algorithm as written.
    pub fn algorithm_name(&self) -> &str {
        &self.text[..usize::from(self.colon)]
    }

    /// The part behind the colon.
    pub fn encoded(&self) -> &str {
        &self.text[usize::from(self.colon) + 1..]
    }

    /// The whole text, `algorithm:encoded`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether Layby can compute this digest, and so may store what it names.
    pub fn is_verifiable(&self) -> bool {
        self.algorithm() != Algorithm::Other
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Grammar)?;
        if text.len() > MAX_LEN || !is_algorithm(algorithm) || !is_encoded(encoded) {
            return Err(DigestError::Grammar);
        }
        let hex_digits = match algorithm {
            "sha256" => Some(("sha256", 64)),
            "sha512" => Some(("sha512", 128)),
            _ => None,
        };
        if let Some((name, digits)) = hex_digits {
            let is_hex = encoded
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if encoded.len() != digits || !is_hex {
                return Err(DigestError::Encoded(name, digits));
            }
        }
        Ok(Self::from_parts(algorithm, encoded))
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-']).all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    })
}

/// `[a-zA-Z0-9=_-]+`
fn is_encoded(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest from bytes that arrive piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher for `algorithm`; `None` where Layby cannot compute it.
    pub fn new(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => Some(Self(State::Sha256(Sha256::new()))),
            Algorithm::Sha512 => Some(Self(State::Sha512(Box::default()))),
            Algorithm::Other => None,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => {
                Digest::from_parts("sha256", &const_hex::encode(state.finalize()))
            }
            State::Sha512(state) => {
                Digest::from_parts("sha512", &const_hex::encode(state.finalize()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_shows_as_it_was_written() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest, Digest::sha256(b""));
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
        assert!(digest.encoded().starts_with("e3b0"));
    }

    #[test]
    fn registered_algorithms_need_lower_case_hexadecimal_of_the_right_length() {
        for bad in [
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:e3b0",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:../../../../../../../../../../../../../../../../../../etc/passwd/x",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_algorithms_that_fit_the_grammar_pass_but_cannot_be_verified() {
        let digest: Digest = "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"
            .parse()
            .unwrap();
        assert_eq!(digest.algorithm(), Algorithm::Other);
        assert!(!digest.is_verifiable());
        for bad in [
            "", ":", "sha256", "sha256:", "a b:c", "+a:b", "a:b/c", "a:b.c",
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError::Grammar), "{bad}");
        }
    }

    #[test]
    fn hashing_in_pieces_equals_hashing_at_once() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut hasher = Hasher::new(algorithm).unwrap();
            hasher.update(b"hello ");
            hasher.update(b"world");
            assert_eq!(Some(hasher.finish()), Digest::of(algorithm, b"hello world"));
        }
    }
}

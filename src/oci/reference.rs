//! Tags, and references: a tag or a digest (distribution-spec, "Pulling manifests", `<reference>`).

use std::fmt;
use std::str::FromStr;

use super::{Digest, DigestError};

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Safe as a file name (it is never `.` or `..`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// A text outside the grammar of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag is 1 to 128 letters, digits, '_', '.' and '-', and does not start with '.' or '-'")]
pub struct TagError;

impl Tag {
    /// The tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag under which registries without a referrers endpoint keep the list of what refers to `digest`
    /// (distribution-spec, "Referrers Tag Schema").
    pub fn of_referrers(digest: &Digest) -> Self {
        // An algorithm starts with a letter or digit, and 32 + 1 + 64 characters are fewer than 128: always a tag.
        let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let clean = |c: char| if is_kept(c) { c } else { '-' };
        let algorithm = digest.algorithm_name().chars().take(32).map(clean);
        let encoded = digest.encoded().chars().take(64).map(clean);
        let text: String = algorithm.chain(['-']).chain(encoded).collect();
        Self(text.into())
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let is_first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let is_rest = |b: u8| is_first(b) || b == b'.' || b == b'-';
        match text.as_bytes() {
            [first, rest @ ..]
                if rest.len() < 128 && is_first(*first) && rest.iter().all(|&b| is_rest(b)) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(TagError),
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A mutable name.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

/// Why a text is neither a tag nor a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no colon and is not a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a colon and is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The reference as written in a path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// A tag cannot hold a colon, so a colon makes it a digest.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Splits the name of an image as people write it: the text before, and the one behind the mark of a tag or a digest. Of `name:tag@digest`, the digest counts.
pub fn split_image(text: &str) -> (&str, Option<&str>) {
    let (text, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    let colon = text.get(last..).and_then(|last| last.rfind(':'));
    match colon {
        Some(colon) => {
            let (name, tag) = text.split_at(last + colon);
            (name, digest.or(tag.strip_prefix(':')))
        }
        None => (text, digest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        let digest = Digest::sha256(b"x").to_string();
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!(
            "sha256:baddigeststring".parse::<Reference>(),
            Err(ReferenceError::Digest(_))
        ));
    }

    #[test]
    fn tags_outside_the_grammar_are_refused() {
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", &"a".repeat(129)] {
            assert_eq!(bad.parse::<Tag>(), Err(TagError), "{bad}");
        }
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        assert!("_v1.2-RC".parse::<Tag>().is_ok());
    }

    #[test]
    fn the_tag_of_referrers_is_cut_and_cleaned() {
        let tag = |text: &str| Tag::of_referrers(&text.parse().unwrap()).to_string();
        let sha256 = Digest::sha256(b"x").to_string();
        assert_eq!(tag(&sha256), sha256.replace(':', "-"));
        assert_eq!(
            tag(&format!("sha512:{}", "ab".repeat(64))),
            format!("sha512-{}", "ab".repeat(32))
        );
        assert_eq!(tag("multihash+base58:a=b_C"), "multihash-base58-a-b_C");
    }

    proptest! {
        #[test]
        fn every_digest_has_a_tag_of_referrers(
            text in "[a-z0-9]{1,20}([+._-][a-z0-9]{1,20}){0,3}:[a-zA-Z0-9=_-]{1,99}",
        ) {
            if let Ok(digest) = text.parse::<Digest>() {
                let tag = Tag::of_referrers(&digest);
                prop_assert_eq!(tag.as_str().parse::<Tag>(), Ok(tag));
            }
        }
    }
}

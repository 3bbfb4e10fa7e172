//! What is never evicted: `docker.io/library/*:*`, `ghcr.io/org/app@sha256:…`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::faults::Wrong;
use super::image_pattern::{ImagePattern, PatternError, is_below};
use super::upstream::{Upstream, UpstreamName};
use crate::oci::{Digest, RepoName, Tag};

/// Images that are kept whatever room is needed.
#[derive(Debug, Clone)]
pub enum Pin {
    /// Those whose tag the pattern matches.
    Tags(ImagePattern),
    /// One manifest, under whatever tag.
    Digest {
        /// Its upstream.
        upstream: UpstreamName,
        /// Its repository there.
        repository: RepoName,
        /// Its digest.
        digest: Digest,
    },
}

/// A text that is not a [`Pin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Not a pattern either.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// What follows the `@`, or stands before it, is not an image's.
    #[error(r#"names no image by its digest; write "docker.io/library/alpine@sha256:…""#)]
    Digest,
}

impl Pin {
    /// Whether the image is meant; `tag` is `None` where none points at it.
    pub fn matches(
        &self,
        upstream: &UpstreamName,
        repository: &RepoName,
        tag: Option<&Tag>,
        digest: &Digest,
    ) -> bool {
        match self {
            Self::Tags(pattern) => {
                tag.is_some_and(|tag| pattern.matches(upstream, repository, tag))
            }
            Self::Digest {
                upstream: of,
                repository: its,
                digest: pinned,
            } => of == upstream && its == repository && pinned == digest,
        }
    }

    /// Whether some image of the repository may be meant.
    pub fn matches_repository(&self, upstream: &UpstreamName, repository: &RepoName) -> bool {
        match self {
            Self::Tags(pattern) => pattern.matches_repository(upstream, repository),
            Self::Digest {
                upstream: of,
                repository: its,
                ..
            } => of == upstream && its == repository,
        }
    }

    /// Whether some image of a repository at or below `prefix` may be meant: an upstream's key, with components of a
    /// repository's name behind it or without; empty for all upstreams.
    pub fn may_match_below(&self, prefix: &str) -> bool {
        match self {
            Self::Tags(pattern) => pattern.may_match_below(prefix),
            Self::Digest {
                upstream,
                repository,
                ..
            } => is_below(&format!("{upstream}/{repository}"), prefix),
        }
    }

    /// The pin that `text` is, of some of `upstreams`: one that could never match is wrong.
    pub(super) fn read(text: &str, upstreams: &[Arc<Upstream>]) -> Result<Self, Wrong> {
        if !text.contains('@') {
            return ImagePattern::read(text, upstreams).map(Self::Tags);
        }
        let wrong = |error: &PinError| {
            let said = error.to_string();
            let (problem, instead) = said.split_once("; ").unwrap_or((&said, ""));
            Wrong::new(format!("{text:?} {problem}"), instead)
        };
        let pin: Self = text.parse().map_err(|error| wrong(&error))?;
        match &pin {
            Self::Digest { upstream, .. } if !upstreams.iter().any(|one| one.name == *upstream) => {
                Err(Wrong::new(
                    format!("{:?} is not an upstream's key", upstream.as_str()),
                    "write the key of one of [upstreams]",
                ))
            }
            _ => Ok(pin),
        }
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let Some((place, digest)) = text.split_once('@') else {
            return Ok(Self::Tags(text.parse()?));
        };
        let (upstream, repository) = place.split_once('/').ok_or(PinError::Digest)?;
        Ok(Self::Digest {
            upstream: upstream.parse().map_err(|_| PinError::Digest)?,
            repository: repository.parse().map_err(|_| PinError::Digest)?,
            digest: digest.parse().map_err(|_| PinError::Digest)?,
        })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tags(pattern) => pattern.fmt(f),
            Self::Digest {
                upstream,
                repository,
                digest,
            } => write!(f, "{upstream}/{repository}@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str =
        "ghcr.io/org/app@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn matches(pin: &str, repository: &str, tag: Option<&str>, digest: &Digest) -> bool {
        let pin: Pin = pin.parse().unwrap();
        let tag = tag.map(|tag| tag.parse().unwrap());
        pin.matches(
            &"ghcr.io".parse().unwrap(),
            &repository.parse().unwrap(),
            tag.as_ref(),
            digest,
        )
    }

    #[test]
    fn a_pin_by_digest_means_that_manifest_under_every_tag_and_none() {
        let (pinned, other) = (Digest::sha256(b"{}"), Digest::sha256(b"x"));
        assert_eq!(APP.parse::<Pin>().unwrap().to_string(), APP);
        assert!(matches(APP, "org/app", None, &pinned));
        assert!(matches(APP, "org/app", Some("v1"), &pinned));
        assert!(!matches(APP, "org/app", Some("v1"), &other));
        assert!(!matches(APP, "org/other", None, &pinned));
    }

    #[test]
    fn a_pattern_means_tags_only() {
        let digest = Digest::sha256(b"{}");
        assert!(matches("ghcr.io/org/*:v*", "org/app", Some("v1"), &digest));
        assert!(!matches("ghcr.io/org/*:v*", "org/app", Some("w1"), &digest));
        assert!(!matches("ghcr.io/org/*", "org/app", None, &digest));
    }

    #[test]
    fn half_a_digest_is_no_pin() {
        for text in [
            "ghcr.io/org/app@sha256:00",
            "app@sha256:00",
            "ghcr.io/a b@x",
            "@",
        ] {
            assert_eq!(text.parse::<Pin>().err(), Some(PinError::Digest), "{text}");
        }
    }
}

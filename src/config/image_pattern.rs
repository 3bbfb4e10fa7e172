//! Patterns for images: `docker.io/library/*:*-alpine`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};

use super::faults::Wrong;
use super::upstream::{Upstream, UpstreamName};
use crate::oci::{RepoName, Tag};

/// Globs over an upstream's key with a repository, and over its tags: `*` stays within a component, `**` crosses them.
/// Without a tag part, all tags.
#[derive(Clone)]
pub struct ImagePattern {
    text: String,
    repository: GlobMatcher,
    tag: GlobMatcher,
}

/// A text that is not an [`ImagePattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a glob, or half of one.
    #[error(
        r#"is not a pattern for images; write "docker.io/library/*:*", "ghcr.io/org/**" or "**:latest""#
    )]
    Malformed,
    /// An upstream or a repository is missing.
    #[error(
        r#"names no upstream and repository; write "docker.io/library/alpine:*", or "**:latest" for all repositories"#
    )]
    Incomplete,
    /// It holds a digest.
    #[error("holds a digest; patterns are for tags, leave out what follows the @")]
    Digest,
}

impl ImagePattern {
    /// Whether the image is meant.
    pub fn matches(&self, upstream: &UpstreamName, repository: &RepoName, tag: &Tag) -> bool {
        self.tag.is_match(tag.as_str()) && self.matches_repository(upstream, repository)
    }

    /// Whether some tag of the repository may be meant.
    pub fn matches_repository(&self, upstream: &UpstreamName, repository: &RepoName) -> bool {
        self.repository.is_match(format!("{upstream}/{repository}"))
    }

    /// Whether some tag of a repository at or below `prefix` may be meant, see [`Pin::may_match_below`]. Says so rather too
    /// often: it looks at what stands before the first wildcard.
    ///
    /// [`Pin::may_match_below`]: super::Pin::may_match_below
    pub(super) fn may_match_below(&self, prefix: &str) -> bool {
        let (repository, _) = split(&self.text);
        match repository.find(GLOB) {
            None => is_below(repository, prefix),
            Some(end) => {
                let fixed = repository.get(..end).unwrap_or_default();
                prefix.starts_with(fixed) || is_below(fixed, prefix)
            }
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern that `text` is, for images of some of `upstreams`: one that could never match is wrong.
    pub(super) fn read(text: &str, upstreams: &[Arc<Upstream>]) -> Result<Self, Wrong> {
        let pattern: Self = text.parse().map_err(|error: PatternError| {
            let said = error.to_string();
            let (problem, instead) = said.split_once("; ").unwrap_or((&said, ""));
            Wrong::new(format!("{text:?} {problem}"), instead)
        })?;
        let (repository, _) = split(text);
        match repository.split_once('/') {
            Some((upstream, rest)) if !is_glob(upstream) => known(upstream, rest, upstreams)?,
            _ => {}
        }
        Ok(pattern)
    }
}

/// Whether the components of `name` begin with those of `prefix`.
pub(super) fn is_below(name: &str, prefix: &str) -> bool {
    let rest = name.strip_prefix(prefix);
    rest.is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

/// The part for upstream and repository, and the one for the tag.
fn split(text: &str) -> (&str, Option<&str>) {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    match text.get(last..).and_then(|name| name.rfind(':')) {
        Some(colon) => {
            let (repository, tag) = text.split_at(last + colon);
            (repository, tag.strip_prefix(':'))
        }
        None => (text, None),
    }
}

fn is_glob(text: &str) -> bool {
    text.contains(GLOB)
}

/// What a glob is told by.
const GLOB: [char; 8] = ['*', '?', '[', ']', '{', '}', '!', '\\'];

/// Images are known by their upstream's key and, on Docker Hub, with `library/`.
fn known(name: &str, repository: &str, upstreams: &[Arc<Upstream>]) -> Result<(), Wrong> {
    let written = |upstream: &&Arc<Upstream>| upstream.name.as_str() == name;
    let Some(upstream) = upstreams.iter().find(written) else {
        let by_alias = |upstream: &&Arc<Upstream>| upstream.aliases.iter().any(|a| a == name);
        let names = upstreams.iter().map(|upstream| upstream.name.as_str());
        let instead = match upstreams.iter().find(by_alias) {
            Some(upstream) => format!("write its key, {}", upstream.name),
            None => match super::document::nearest(name, names) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write [upstreams.{name:?}] with its url"),
            },
        };
        return Err(Wrong::new(
            format!("{name:?} is not an upstream's key"),
            instead,
        ));
    };
    if upstream.library && !repository.contains('/') && !repository.contains("**") {
        return Err(Wrong::new(
            format!("no repository of {name} has one component"),
            format!("write {name}/library/{repository}"),
        ));
    }
    Ok(())
}

impl FromStr for ImagePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.contains('@') {
            return Err(PatternError::Digest);
        }
        let (repository, tag) = split(text);
        let glob = |text: &str| {
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            match glob {
                Ok(glob) if !text.is_empty() => Ok(glob.compile_matcher()),
                _ => Err(PatternError::Malformed),
            }
        };
        let pattern = Self {
            text: text.to_owned(),
            repository: glob(repository)?,
            tag: glob(tag.unwrap_or("*"))?,
        };
        if !repository.contains('/') && !repository.contains("**") {
            return Err(PatternError::Incomplete);
        }
        Ok(pattern)
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, image: &str) -> bool {
        let (place, tag) = image.rsplit_once(':').expect("a tag");
        let (upstream, repository) = place.split_once('/').expect("an upstream");
        let pattern: ImagePattern = pattern.parse().expect(pattern);
        pattern.matches(
            &upstream.parse().expect(upstream),
            &repository.parse().expect(repository),
            &tag.parse().expect(tag),
        )
    }

    #[test]
    fn what_may_be_below_a_prefix_is_told_by_what_stands_before_the_first_wildcard() {
        let may = |pattern: &str, prefix| {
            let pattern: ImagePattern = pattern.parse().expect(pattern);
            pattern.may_match_below(prefix)
        };
        let app = "ghcr.io/org/app";
        for prefix in ["", "ghcr.io", "ghcr.io/org", app] {
            assert!(may(app, prefix), "{prefix}");
        }
        for prefix in ["ghcr.io/or", "ghcr.io/org/app/x", "quay.io"] {
            assert!(!may(app, prefix), "{prefix}");
        }
        for pattern in ["**:latest", "ghcr.io/**", "ghcr.io/org/a*"] {
            assert!(may(pattern, app), "{pattern}");
        }
        assert!(may("ghcr.io/org/a*", "ghcr.io/org"));
        assert!(!may("ghcr.io/org/b*", app));
        assert!(!may("quay.io/**", app));
    }

    #[test]
    fn a_pattern_is_about_upstream_repository_and_tag() {
        let image = "docker.io/library/node:22-alpine";
        for pattern in [
            "docker.io/library/*:*-alpine",
            "docker.io/library/node",
            "docker.io/**",
            "**:22*",
            "**",
            "*/library/node:22-alpine",
        ] {
            assert!(matches(pattern, image), "{pattern}");
        }
        for pattern in [
            "docker.io/*:*",
            "docker.io/library/node:22",
            "quay.io/**",
            "docker.io/library/*:alpine",
            "**/nod",
        ] {
            assert!(!matches(pattern, image), "{pattern}");
        }
    }

    #[test]
    fn an_upstream_may_have_a_port() {
        assert!(matches("reg.example:5000/a", "reg.example:5000/a:v1"));
        assert!(matches("reg.example:5000/a:v*", "reg.example:5000/a:v1"));
        assert!(!matches("reg.example:5000/a:w*", "reg.example:5000/a:v1"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_what_to_write() {
        for (text, error) in [
            ("", PatternError::Malformed),
            ("docker.io/library/[", PatternError::Malformed),
            ("docker.io/library/a:", PatternError::Malformed),
            ("alpine", PatternError::Incomplete),
            ("*:latest", PatternError::Incomplete),
            ("docker.io/library/a@sha256:00", PatternError::Digest),
        ] {
            assert_eq!(text.parse::<ImagePattern>().err(), Some(error), "{text}");
        }
    }
}

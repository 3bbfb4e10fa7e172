//! `[tags]`: how long a tag's answer holds, and when an old one is better than none.

use std::sync::Arc;
use std::time::Duration;

use super::document::Section;
use super::faults::Wrong;
use super::image_pattern::ImagePattern;
use super::upstream::{Upstream, UpstreamName};
use super::values::{duration, finite};
use crate::oci::{RepoName, Tag};

/// Freshness of tags, tag lists and referrers of one upstream. `Duration::MAX` is written `"forever"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagPolicy {
    /// An answer younger than this is served without asking.
    pub ttl: Duration,
    /// Past `ttl` by less than this: served at once, and asked about behind the client's back.
    pub stale_while_revalidate: Duration,
    /// Past `ttl` by less than this: served when the upstream is unreachable, broken or rate-limiting (5xx, 429).
    pub stale_if_error: Duration,
    /// The same for an upstream that says the tag is gone (404).
    pub stale_if_gone: Duration,
    /// The same for an upstream that denies us (401, 403).
    pub stale_if_denied: Duration,
    /// An authoritative 404 is believed for this long, and a failed revalidation is not repeated sooner.
    pub negative_ttl: Duration,
}

impl TagPolicy {
    const DEFAULT: Self = Self {
        ttl: Duration::from_mins(1),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::MAX,
        stale_if_gone: Duration::MAX,
        stale_if_denied: Duration::MAX,
        negative_ttl: Duration::from_secs(10),
    };

    /// The `[tags]` section, but for its rules.
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self::DEFAULT.changed_by(section, "ttl")
    }

    /// This policy, changed by the keys of a section that has others too, in which `ttl` is called `ttl_key`.
    pub(super) fn changed_by(&self, section: &Section<'_>, ttl_key: &'static str) -> Self {
        let of = |key, default| section.text(key, duration).unwrap_or(default);
        Self {
            ttl: of(ttl_key, self.ttl),
            stale_while_revalidate: of("stale_while_revalidate", self.stale_while_revalidate),
            stale_if_error: of("stale_if_error", self.stale_if_error),
            stale_if_gone: of("stale_if_gone", self.stale_if_gone),
            stale_if_denied: of("stale_if_denied", self.stale_if_denied),
            negative_ttl: section
                .text("negative_ttl", finite)
                .unwrap_or(self.negative_ttl),
        }
    }
}

/// What is said about some tags in particular. The first rule that matches a tag is the one that counts.
#[derive(Debug, Clone, Default)]
pub struct TagRules(Vec<TagRule>);

/// One `[[tags.rule]]`.
#[derive(Debug, Clone)]
pub struct TagRule {
    pattern: ImagePattern,
    /// In place of the upstream's.
    pub ttl: Option<Duration>,
    /// Whether the tag stays for good where it was first seen to point.
    pub immutable: bool,
}

impl TagRules {
    /// The rules in `[tags]`.
    pub(super) fn read(tags: &Section<'_>, upstreams: &[Arc<Upstream>]) -> Self {
        let rules = tags.tables("rule");
        Self(
            rules
                .iter()
                .filter_map(|section| TagRule::read(section, upstreams))
                .collect(),
        )
    }

    /// The rule for a tag.
    pub fn of(
        &self,
        upstream: &UpstreamName,
        repository: &RepoName,
        tag: &Tag,
    ) -> Option<&TagRule> {
        let mut rules = self.0.iter();
        rules.find(|rule| rule.pattern.matches(upstream, repository, tag))
    }
}

impl TagRule {
    fn read(section: &Section<'_>, upstreams: &[Arc<Upstream>]) -> Option<Self> {
        let pattern = section.text("match", |text| ImagePattern::read(text, upstreams));
        let ttl = section.text("ttl", duration);
        let immutable = section.flag("immutable");
        section.close();
        if !section.has("match") {
            let example = r#"write match = "docker.io/library/*:*-alpine""#;
            section.fault("match", Wrong::new("is missing", example));
        }
        if !section.has("ttl") && immutable != Some(true) && !section.has("immutable") {
            let instead = r#"write ttl = "1h" or immutable = true"#;
            section.fault_here(Wrong::new("changes nothing", instead));
        }
        if section.has("ttl") && immutable == Some(true) {
            let problem = "means nothing for tags that are immutable, which are never asked about";
            section.fault("ttl", Wrong::new(problem, "keep one of the two"));
        }
        Some(Self {
            pattern: pattern?,
            ttl,
            immutable: immutable.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Faults, Overrides};

    fn from(text: &str) -> Result<Config, Faults> {
        Config::from_toml(text, &Overrides::default())
    }

    /// The faults of a text, as they are shown.
    fn faults(text: &str) -> Vec<String> {
        let faults = from(text).expect_err("taken as right");
        faults.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_rule_for_a_tag_counts_alone() {
        let config = from(
            r#"
            [[tags.rule]]
            match = "docker.io/library/*:*-alpine"
            ttl = "1h"
            [[tags.rule]]
            match = "docker.io/library/node:*"
            immutable = true
            [[tags.rule]]
            match = "**:v*"
            immutable = false
            ttl = "forever"
            "#,
        )
        .expect("right");
        let rule = |upstream: &str, repository: &str, tag: &str| {
            let (upstream, tag) = (upstream.parse().expect(upstream), tag.parse().expect(tag));
            let repository = repository.parse().expect(repository);
            let rule = config.tag_rules.of(&upstream, &repository, &tag)?;
            Some((rule.ttl, rule.immutable))
        };
        let hour = Some(Duration::from_hours(1));
        assert_eq!(
            rule("docker.io", "library/node", "22-alpine"),
            Some((hour, false))
        );
        assert_eq!(rule("docker.io", "library/node", "v22"), Some((None, true)));
        assert_eq!(
            rule("quay.io", "a/b/c", "v1"),
            Some((Some(Duration::MAX), false))
        );
        assert_eq!(rule("quay.io", "a/b/c", "1"), None);
    }

    #[test]
    fn a_rule_that_could_do_nothing_is_refused() {
        for (rule, line, hint) in [
            ("ttl = '1h'", 1, "docker.io/library/*:*-alpine"),
            ("match = '**'", 1, "write ttl"),
            (
                "match = '**'\nttl = '1h'\nimmutable = true",
                3,
                "keep one of the two",
            ),
            ("match = '**'\nttl = 'soon'", 3, "is not a length of time"),
            (
                "match = '**'\nttl = '1h'\nagge = 1",
                4,
                "the keys here are match",
            ),
            (
                "match = 'alpine'\nttl = '1h'",
                2,
                "docker.io/library/alpine:*",
            ),
            (
                "match = 'docker.io/alpine:*'\nttl = '1h'",
                2,
                "write docker.io/library/alpine",
            ),
            (
                "match = 'dcoker.io/library/a'\nttl = '1h'",
                2,
                "did you mean docker.io?",
            ),
            (
                "match = 'index.docker.io/library/a'\nttl = '1h'",
                2,
                "its key, docker.io",
            ),
            (
                "match = 'docker.io/library/['\nttl = '1h'",
                2,
                "is not a pattern",
            ),
        ] {
            let faults = faults(&format!("[[tags.rule]]\n{rule}\n"));
            assert_eq!(faults.len(), 1, "{rule}: {faults:?}");
            let start = format!("line {line}: tags.rule[0]");
            assert!(
                faults[0].starts_with(&start) && faults[0].contains(hint),
                "{rule}: {faults:?}"
            );
        }
        let listed = faults("[tags]\nrule = ['**']");
        assert!(listed[0].contains("[[tags.rule]]"), "{listed:?}");
    }
}

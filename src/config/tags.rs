//! `[tags]`: how long a tag's answer holds, and when an old one is better than none.

use std::time::Duration;

use super::document::Section;
use super::values::{duration, finite};

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

    /// The `[tags]` section.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let policy = Self::DEFAULT.changed_by(section, "ttl");
        section.close();
        policy
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

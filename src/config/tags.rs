//! `[tags]`: how long a tag's answer holds, and when an old one is better than none.

use std::time::Duration;

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

//! What holds for one tag: its upstream's policy, changed by the rule for it.

use std::time::Duration;

use crate::config::{TagPolicy, TagRules};
use crate::oci::Tag;
use crate::proxy::Place;

/// How long a tag's answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct Terms {
    /// As for any tag; an immutable one is fresh for ever.
    pub(in crate::proxy) policy: TagPolicy,
    /// Whether the tag stays where it was first seen to point, until an operator has it asked about again.
    pub(super) immutable: bool,
}

impl Terms {
    /// What holds for a tag of an upstream with this policy.
    pub(in crate::proxy) fn of(
        policy: &TagPolicy,
        rules: &TagRules,
        place: &Place,
        tag: &Tag,
    ) -> Self {
        let mut policy = policy.clone();
        let rule = rules.of(&place.upstream, &place.repository, tag);
        let immutable = rule.is_some_and(|rule| rule.immutable);
        policy.ttl = match rule {
            _ if immutable => Duration::MAX,
            Some(rule) => rule.ttl.unwrap_or(policy.ttl),
            None => policy.ttl,
        };
        Self { policy, immutable }
    }
}

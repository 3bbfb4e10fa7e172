//! What holds for one tag: its upstream's policy, changed by the rule for it.

use std::time::Duration;

use crate::config::TagPolicy;
use crate::proxy::context::Remote;

use super::TagKey;

/// How long a tag's answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    /// As for any tag; an immutable one is fresh for ever.
    pub(super) policy: TagPolicy,
    /// Whether the tag stays where it was first seen to point, until an operator has it asked about again.
    pub(super) immutable: bool,
}

impl Terms {
    pub(super) fn of(remote: &Remote, key: &TagKey) -> Self {
        let mut policy = remote.policy.clone();
        let place = &key.place;
        let rule = remote
            .rules
            .of(&place.upstream, &place.repository, &key.tag);
        let immutable = rule.is_some_and(|rule| rule.immutable);
        policy.ttl = match rule {
            _ if immutable => Duration::MAX,
            Some(rule) => rule.ttl.unwrap_or(policy.ttl),
            None => policy.ttl,
        };
        Self { policy, immutable }
    }
}

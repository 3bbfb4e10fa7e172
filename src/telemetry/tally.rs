//! What clients were served and what that cost, by upstream: the counts that outlive a restart.
//!
//! Metrics begin at zero with each life, as Prometheus expects; an operator who asks what the cache is worth wants the
//! sum of all lives. Bounded by the number of upstreams.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Counts by upstream. Its own are added to those of earlier lives.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, Counts>>);

/// What was asked of one upstream's content, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests for content, failed ones included.
    pub requests: u64,
    /// Of these, those answered from what was stored.
    pub hits: u64,
    /// Body bytes sent to clients.
    pub served_bytes: u64,
    /// Of these, those that came from what was stored.
    pub hit_bytes: u64,
    /// Body bytes received from the upstream.
    pub upstream_bytes: u64,
}

impl Tally {
    /// Counts a request for an upstream's content.
    pub fn request(&self, upstream: &str, is_hit: bool) {
        self.count(upstream, |counts| {
            counts.requests = counts.requests.saturating_add(1);
            counts.hits = counts.hits.saturating_add(u64::from(is_hit));
        });
    }

    /// Counts body bytes sent.
    pub fn served(&self, upstream: &str, is_hit: bool, bytes: u64) {
        let from_store = if is_hit { bytes } else { 0 };
        self.count(upstream, |counts| {
            counts.served_bytes = counts.served_bytes.saturating_add(bytes);
            counts.hit_bytes = counts.hit_bytes.saturating_add(from_store);
        });
    }

    /// Counts body bytes received.
    pub fn received(&self, upstream: &str, bytes: u64) {
        self.count(upstream, |counts| {
            counts.upstream_bytes = counts.upstream_bytes.saturating_add(bytes);
        });
    }

    /// Adds what earlier lives counted.
    pub fn add(&self, earlier: &BTreeMap<String, Counts>) {
        for (upstream, before) in earlier {
            self.count(upstream, |counts| *counts = counts.plus(before));
        }
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<String, Counts> {
        self.0.lock().clone()
    }

    fn count(&self, upstream: &str, change: impl FnOnce(&mut Counts)) {
        let mut all = self.0.lock();
        match all.get_mut(upstream) {
            Some(counts) => change(counts),
            None => change(all.entry(upstream.to_owned()).or_default()),
        }
    }
}

impl Counts {
    /// The sum of two.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            hits: self.hits.saturating_add(other.hits),
            served_bytes: self.served_bytes.saturating_add(other.served_bytes),
            hit_bytes: self.hit_bytes.saturating_add(other.hit_bytes),
            upstream_bytes: self.upstream_bytes.saturating_add(other.upstream_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_earlier_lives_are_added_to_those_of_this_one() {
        let tally = Tally::default();
        tally.request("docker.io", true);
        tally.request("docker.io", false);
        tally.served("docker.io", true, 70);
        tally.served("docker.io", false, 30);
        tally.received("docker.io", 40);
        let first = tally.counts();
        let docker = first["docker.io"];
        assert_eq!((docker.requests, docker.hits), (2, 1));
        assert_eq!((docker.served_bytes, docker.hit_bytes), (100, 70));
        let second = Tally::default();
        second.received("docker.io", 2);
        second.add(&first);
        assert_eq!(second.counts()["docker.io"].upstream_bytes, 42);
        assert_eq!(second.counts()["docker.io"].requests, 2);
    }
}

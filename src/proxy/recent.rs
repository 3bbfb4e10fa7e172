//! What was learnt a moment ago and is believed for a moment: absences, failed revalidations.

use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;

use super::freshness;

/// A bounded memory. It is lost at a restart, and its oldest entries when it is full.
pub(super) struct Recent<K, V> {
    entries: Cache<K, (Timestamp, V)>,
}

/// Most entries of one memory.
const ENTRIES: u64 = 4096;

impl<K, V> Recent<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            entries: Cache::new(ENTRIES),
        }
    }

    /// What was put within `ttl` before `now`.
    pub(super) fn get(&self, key: &K, now: Timestamp, ttl: Duration) -> Option<V> {
        let (since, value) = self.entries.get(key)?;
        freshness::within(since, now, ttl).then_some(value)
    }

    pub(super) fn put(&self, key: K, now: Timestamp, value: V) {
        self.entries.insert(key, (now, value));
    }

    pub(super) fn forget(&self, key: &K) {
        self.entries.invalidate(key);
    }
}

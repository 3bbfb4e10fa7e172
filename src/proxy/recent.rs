//! What was learnt a moment ago and is believed for a moment: absences, failed revalidations.

use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::freshness;

/// A bounded memory. It is lost at a restart, and its oldest entries when it is full.
pub(super) struct Recent<K, V> {
    entries: Cache<K, (Timestamp, V)>,
}

/// Most entries of one memory.
const ENTRIES: u64 = 4096;

/// Nobody asked about an entry for so long: its place is given up, full or not.
const IDLE: Duration = Duration::from_secs(60 * 60);

impl<K, V> Recent<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self {
            // By use only, newcomers before all: what was just learnt is what is asked next.
            entries: Cache::builder()
                .max_capacity(ENTRIES)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(IDLE)
                .build(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_learnt_is_remembered_however_much_is_known() {
        let recent = Recent::new();
        let now = Timestamp::UNIX_EPOCH;
        for key in 0..ENTRIES {
            recent.put(key, now, ());
        }
        for key in (0..ENTRIES).cycle().take(5 * 4096) {
            recent.get(&key, now, IDLE);
        }
        recent.entries.run_pending_tasks();
        for key in ENTRIES..ENTRIES + 100 {
            recent.put(key, now, ());
            recent.entries.run_pending_tasks();
            assert!(recent.get(&key, now, IDLE).is_some(), "{key}");
        }
        assert!(recent.entries.entry_count() <= ENTRIES);
    }
}

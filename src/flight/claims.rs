//! Who fetches what: the first to claim a key leads, whoever comes while it is claimed follows.
//!
//! In one process a [`Table`]; between several a lease that names the replica to follow could stand behind [`Claims`].

use std::collections::HashMap;
use std::hash::Hash;

use super::sync::{Arc, Mutex};

/// What whoever claims a key becomes.
#[derive(Debug)]
pub(super) enum Claim<L, P> {
    /// The one who fetches, for as long as it holds the lease.
    Leader(L),
    /// One of those who read what another fetches.
    Follower(P),
}

/// What followers see of a fetch. Clones are the same fetch.
pub(super) trait Progress: Clone {
    /// The leader has given its lease back. If the fetch has no outcome yet it has failed, and all followers must hear
    /// of it.
    fn leader_gone(&self);
}

/// Decides who fetches. A dropped lease frees its key first and then says [`Progress::leader_gone`], so that whoever
/// hears of it and claims the key anew becomes its leader.
pub(super) trait Claims<K, P: Progress> {
    /// Leadership of one key, given back when dropped.
    type Lease: Send;

    /// The fetch of `key` under way.
    fn find(&self, key: &K) -> Option<P>;

    /// Follows the fetch of `key`, if there is one that is `usable`; else leads the one that `start` makes. The lease of
    /// one that was not usable is worth nothing from then on.
    fn claim(
        &self,
        key: &K,
        usable: impl Fn(&P) -> bool,
        start: impl FnOnce() -> P,
    ) -> Claim<Self::Lease, P>;
}

/// The claims of one process.
#[derive(Debug)]
pub(super) struct Table<K, P>(Arc<Mutex<Entries<K, P>>>);

#[derive(Debug)]
struct Entries<K, P> {
    by_key: HashMap<K, Entry<P>>,
    /// Leases given so far; tells one from its successor.
    leases: u64,
}

#[derive(Debug)]
struct Entry<P> {
    lease: u64,
    progress: P,
}

/// A place in the [`Table`].
#[derive(Debug)]
pub(super) struct TableLease<K: Eq + Hash, P: Progress> {
    table: Arc<Mutex<Entries<K, P>>>,
    key: K,
    number: u64,
    progress: P,
}

impl<K, P> Default for Table<K, P> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Entries {
            by_key: HashMap::new(),
            leases: 0,
        })))
    }
}

impl<K, P> Claims<K, P> for Table<K, P>
where
    K: Clone + Eq + Hash + Send,
    P: Progress + Send,
{
    type Lease = TableLease<K, P>;

    fn find(&self, key: &K) -> Option<P> {
        let entries = self.0.lock();
        entries.by_key.get(key).map(|entry| entry.progress.clone())
    }

    fn claim(
        &self,
        key: &K,
        usable: impl Fn(&P) -> bool,
        start: impl FnOnce() -> P,
    ) -> Claim<TableLease<K, P>, P> {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.by_key.get(key)
            && usable(&entry.progress)
        {
            return Claim::Follower(entry.progress.clone());
        }
        let progress = start();
        let number = entries.leases;
        entries.leases += 1;
        let entry = Entry {
            lease: number,
            progress: progress.clone(),
        };
        entries.by_key.insert(key.clone(), entry);
        Claim::Leader(TableLease {
            table: Arc::clone(&self.0),
            key: key.clone(),
            number,
            progress,
        })
    }
}

impl<K: Eq + Hash, P: Progress> Drop for TableLease<K, P> {
    fn drop(&mut self) {
        let mut entries = self.table.lock();
        let is_ours = |entry: &Entry<P>| entry.lease == self.number;
        if entries.by_key.get(&self.key).is_some_and(is_ours) {
            entries.by_key.remove(&self.key);
        }
        drop(entries);
        self.progress.leader_gone();
    }
}

//! What is stored, in memory: the size and the last use of every blob, and their sum.
//!
//! The disk is the truth. A scan at start fills this, commits and removals keep it up, and eviction will choose by it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::oci::{Algorithm, Digest};
use crate::telemetry::Metrics;

/// Sizes and last use of all blobs known so far.
#[derive(Debug)]
pub(super) struct Usage {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    scanned: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    blobs: HashMap<Key, Entry>,
    bytes: u64,
    /// Last uses that are not on disk yet.
    unwritten: HashMap<Key, Seconds>,
    /// What was removed since the scan began, which it may have seen before; `None` once it is done.
    removed: Option<HashSet<Key>>,
}

/// A digest in few bytes: there may be millions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Sha256([u8; 32]),
    Sha512(Box<[u8; 64]>),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    len: u64,
    used: Seconds,
    /// The last use that the file's mtime tells.
    written: Seconds,
}

/// Since the epoch; good until 2106.
type Seconds = u32;

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes of committed blobs.
    pub bytes: u64,
    /// Number of committed blobs.
    pub blobs: u64,
}

/// A blob that the scan found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) len: u64,
    pub(super) used: SystemTime,
}

impl Usage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let usage = Self {
            state: Mutex::new(State {
                blobs: HashMap::new(),
                bytes: 0,
                unwritten: HashMap::new(),
                removed: Some(HashSet::new()),
            }),
            metrics,
            scanned: watch::Sender::new(false),
        };
        usage.show(usage.totals());
        usage
    }

    /// How much is known to be stored.
    pub(super) fn totals(&self) -> Totals {
        self.state.lock().totals()
    }

    /// The length of a blob when it was last committed or scanned.
    pub(super) fn len_of(&self, digest: &Digest) -> Option<u64> {
        let key = Key::of(digest)?;
        self.state.lock().blobs.get(&key).map(|entry| entry.len)
    }

    /// The last use of a blob, if it is known here.
    pub(super) fn used(&self, digest: &Digest) -> Option<SystemTime> {
        let key = Key::of(digest)?;
        let used = self.state.lock().blobs.get(&key)?.used;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(used.into()))
    }

    /// Notes a committed blob.
    pub(super) fn add(&self, digest: &Digest, len: u64, now: SystemTime) {
        let Some(key) = Key::of(digest) else { return };
        let used = seconds(now);
        let entry = Entry {
            len,
            used,
            written: used,
        };
        let totals = {
            let mut state = self.state.lock();
            if let Some(removed) = &mut state.removed {
                removed.remove(&key);
            }
            state.unwritten.remove(&key);
            state.insert(key, entry);
            state.totals()
        };
        self.show(totals);
    }

    /// Notes blobs that the scan found, unless they are known or were removed meanwhile.
    pub(super) fn add_found(&self, found: Vec<Found>) {
        let totals = {
            let mut state = self.state.lock();
            for blob in found {
                let Some(key) = Key::of(&blob.digest) else {
                    continue;
                };
                let gone = state.removed.as_ref().is_some_and(|r| r.contains(&key));
                if gone || state.blobs.contains_key(&key) {
                    continue;
                }
                let written = seconds(blob.used);
                let used = state.unwritten.get(&key).copied().unwrap_or(written);
                let len = blob.len;
                state.insert(key, Entry { len, used, written });
            }
            state.totals()
        };
        self.show(totals);
    }

    /// Notes that a blob is gone.
    pub(super) fn remove(&self, digest: &Digest) {
        let Some(key) = Key::of(digest) else { return };
        let totals = {
            let mut state = self.state.lock();
            state.unwritten.remove(&key);
            if let Some(entry) = state.blobs.remove(&key) {
                state.bytes = state.bytes.saturating_sub(entry.len);
            }
            if let Some(removed) = &mut state.removed {
                removed.insert(key);
            }
            state.totals()
        };
        self.show(totals);
    }

    /// Notes that a blob was used.
    pub(super) fn touch(&self, digest: &Digest, now: SystemTime) {
        let Some(key) = Key::of(digest) else { return };
        let now = seconds(now);
        let mut state = self.state.lock();
        let written = match state.blobs.get_mut(&key) {
            Some(entry) => {
                entry.used = entry.used.max(now);
                entry.written
            }
            None => 0,
        };
        let worth_it = now.saturating_sub(written) >= MTIME_GRAIN;
        if worth_it
            && (state.unwritten.len() < MOST_UNWRITTEN || state.unwritten.contains_key(&key))
        {
            state.unwritten.insert(key, now);
        }
    }

    /// Takes the last uses that are to be written to disk.
    pub(super) fn take_unwritten(&self) -> Vec<(Digest, SystemTime)> {
        let mut state = self.state.lock();
        let taken = std::mem::take(&mut state.unwritten);
        for (key, &used) in &taken {
            if let Some(entry) = state.blobs.get_mut(key) {
                entry.written = used;
            }
        }
        drop(state);
        taken
            .into_iter()
            .filter_map(|(key, used)| {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(used.into());
                Some((key.digest()?, time))
            })
            .collect()
    }

    /// Notes that the scan is done.
    pub(super) fn set_scanned(&self) {
        self.state.lock().removed = None;
        self.scanned.send_replace(true);
    }

    /// Tells when the scan is done.
    pub(super) fn scanned(&self) -> watch::Receiver<bool> {
        self.scanned.subscribe()
    }

    fn show(&self, totals: Totals) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.cache.bytes.set(gauge(totals.bytes));
        self.metrics.cache.blobs.set(gauge(totals.blobs));
    }
}

impl State {
    fn totals(&self) -> Totals {
        Totals {
            bytes: self.bytes,
            blobs: u64::try_from(self.blobs.len()).unwrap_or(u64::MAX),
        }
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        let before = self.blobs.insert(key, entry).map_or(0, |old| old.len);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(entry.len);
    }
}

impl Key {
    /// `None` for a digest that cannot be verified, which is never stored.
    fn of(digest: &Digest) -> Option<Self> {
        let encoded = digest.encoded();
        match digest.algorithm() {
            Algorithm::Sha256 => const_hex::decode_to_array(encoded).ok().map(Self::Sha256),
            Algorithm::Sha512 => {
                let bytes = const_hex::decode_to_array(encoded).ok()?;
                Some(Self::Sha512(Box::new(bytes)))
            }
            Algorithm::Other => None,
        }
    }

    fn digest(&self) -> Option<Digest> {
        let text = match self {
            Self::Sha256(bytes) => format!("sha256:{}", const_hex::encode(bytes)),
            Self::Sha512(bytes) => format!("sha512:{}", const_hex::encode(&bytes[..])),
        };
        text.parse().ok()
    }
}

fn seconds(time: SystemTime) -> Seconds {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}

/// A last use is written again after so many seconds: nobody evicts by the minute.
const MTIME_GRAIN: Seconds = 60;

/// Last uses that wait to be written; beyond, they are kept in memory only.
const MOST_UNWRITTEN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage::new(Arc::default())
    }

    fn found(digest: &Digest, len: u64) -> Vec<Found> {
        vec![Found {
            digest: digest.clone(),
            len,
            used: SystemTime::UNIX_EPOCH,
        }]
    }

    fn totals(bytes: u64, blobs: u64) -> Totals {
        Totals { bytes, blobs }
    }

    #[test]
    fn the_scan_does_not_bring_back_what_was_removed_meanwhile() {
        let usage = usage();
        let digest = Digest::sha256(b"x");
        usage.remove(&digest);
        usage.add_found(found(&digest, 10));
        assert_eq!(usage.totals(), totals(0, 0));
        usage.add(&digest, 10, SystemTime::UNIX_EPOCH);
        usage.add_found(found(&digest, 99));
        assert_eq!(usage.totals(), totals(10, 1));
        usage.set_scanned();
        usage.remove(&digest);
        assert_eq!(usage.totals(), totals(0, 0));
    }

    #[test]
    fn a_blob_committed_twice_counts_once() {
        let usage = usage();
        let digest = Digest::of(Algorithm::Sha512, b"x").unwrap();
        usage.add(&digest, 10, SystemTime::UNIX_EPOCH);
        usage.add(&digest, 10, SystemTime::UNIX_EPOCH);
        assert_eq!(usage.totals(), totals(10, 1));
        assert_eq!(usage.metrics.cache.bytes.get(), 10);
        assert_eq!(usage.metrics.cache.blobs.get(), 1);
    }

    #[test]
    fn a_last_use_is_written_once_a_minute_at_most_and_not_before_it_changed() {
        let usage = usage();
        let digest = Digest::sha256(b"x");
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        usage.add(&digest, 10, start);
        usage.touch(&digest, start + Duration::from_secs(59));
        assert_eq!(usage.take_unwritten(), vec![]);
        let later = start + Duration::from_secs(61);
        usage.touch(&digest, later);
        assert_eq!(usage.take_unwritten(), vec![(digest, later)]);
        assert_eq!(usage.take_unwritten(), vec![]);
    }

    #[test]
    fn waiting_last_uses_are_bounded() {
        let usage = usage();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for n in 0..MOST_UNWRITTEN + 10 {
            usage.touch(&Digest::sha256(&n.to_le_bytes()), now);
        }
        assert_eq!(usage.take_unwritten().len(), MOST_UNWRITTEN);
    }
}

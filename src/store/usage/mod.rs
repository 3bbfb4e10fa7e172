//! What is stored, in memory: the size and the last use of every blob, who reads it, and who goes when there is no room.
//!
//! The disk is the truth. A scan at start fills this, commits and removals keep it up, and eviction chooses by it; it
//! touches no file itself. Some 75 bytes per blob: a node of 64 in a list, found through a table of numbers.

mod choose;
mod chosen;
mod index;
mod key;
mod nodes;
mod probe;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::oci::{Digest, DigestSet};
use crate::telemetry::Metrics;

pub use probe::IndexProbe;

pub(super) use choose::{Demand, Victim};
pub(super) use chosen::Chosen;
pub(super) use reading::Reading;

use index::Index;
use key::Key;
use nodes::{Seconds, Segment};
use reading::Readers;

/// Sizes and last use of all blobs known so far.
#[derive(Debug)]
pub(super) struct Usage {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    scanned: watch::Sender<bool>,
    is_ready: watch::Sender<Ready>,
    /// Blobs that were committed in this life.
    commits: AtomicU64,
}

#[derive(Debug)]
struct State {
    index: Index,
    readers: Readers,
    /// As long as the scan runs.
    scan: Option<Scan>,
}

/// What the scan has to know of what happens while it runs.
#[derive(Debug)]
struct Scan {
    /// What was removed since it began, which it may have seen before.
    removed: HashSet<Key>,
    /// What was there when the last life ended, as far as that said so, with what came and went since: too much rather
    /// than too little.
    expected: Option<u64>,
}

/// What eviction waits for.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    is_in_order: bool,
    are_pins_known: bool,
}

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
    /// Knows of no blob yet. `expected` is how many bytes the scan will find, if the last life has said so.
    pub(super) fn new(metrics: Arc<Metrics>, expected: Option<u64>) -> Self {
        let usage = Self {
            state: Mutex::new(State {
                index: Index::new(),
                readers: Readers::default(),
                scan: Some(Scan {
                    removed: HashSet::new(),
                    expected,
                }),
            }),
            metrics,
            scanned: watch::Sender::new(false),
            is_ready: watch::Sender::default(),
            commits: AtomicU64::new(0),
        };
        usage.show(usage.totals());
        usage
    }

    /// How much is known to be stored.
    pub(super) fn totals(&self) -> Totals {
        self.state.lock().totals()
    }

    /// Bytes that blobs take, those included that have lost their names and are still open. As long as not all is counted,
    /// what the last life has left; `None` where that is not known.
    pub(super) fn taken(&self) -> Option<u64> {
        let state = self.state.lock();
        let counted = state.index.bytes();
        let stored = match &state.scan {
            None => counted,
            Some(scan) => scan.expected?.max(counted),
        };
        Some(stored.saturating_add(state.readers.orphaned()))
    }

    /// What the next life may expect to find; `None` where it has to count first.
    pub(super) fn expected(&self) -> Option<u64> {
        let state = self.state.lock();
        match &state.scan {
            None => Some(state.index.bytes()),
            Some(scan) => scan.expected,
        }
    }

    /// The length of a blob when it was last committed or scanned.
    pub(super) fn len_of(&self, digest: &Digest) -> Option<u64> {
        let key = Key::of(digest)?;
        self.state.lock().index.get(&key).map(|node| node.len)
    }

    /// The last use of a blob, if it is known here.
    pub(super) fn used(&self, digest: &Digest) -> Option<SystemTime> {
        let key = Key::of(digest)?;
        let used = self.state.lock().index.get(&key)?.used;
        Some(time(used))
    }

    /// Whether a blob is known not to be there: all are known, and it is none of them.
    pub(super) fn lacks(&self, digest: &Digest) -> bool {
        let Some(key) = Key::of(digest) else {
            return false;
        };
        let state = self.state.lock();
        state.scan.is_none() && state.index.is_all && state.index.find(&key).is_none()
    }

    /// Notes that there may be blobs that are not known.
    pub(super) fn overlooked(&self) {
        self.state.lock().index.is_all = false;
    }

    /// How often a committed blob was noted.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Notes a committed blob; whether it was not known before.
    pub(super) fn add(&self, digest: &Digest, len: u64, now: SystemTime) -> bool {
        let is_new = self.put_in(digest, len, now);
        // Whoever sees this finds it.
        self.commits.fetch_add(1, Ordering::AcqRel);
        is_new
    }

    fn put_in(&self, digest: &Digest, len: u64, now: SystemTime) -> bool {
        let Some(key) = Key::of(digest) else {
            return true;
        };
        let (before, totals) = {
            let mut state = self.state.lock();
            if let Some(scan) = &mut state.scan {
                scan.removed.remove(&key);
                scan.expected = scan.expected.map(|bytes| bytes.saturating_add(len));
            }
            // Who reads the file that was there goes on with it.
            let before = state.index.get(&key).map(|node| node.len);
            if let Some(before) = before {
                state.readers.removed(&key.start, before);
            }
            state.index.add(&key, len, seconds(now));
            (before, state.totals())
        };
        self.show(totals);
        before.is_none()
    }

    /// Notes blobs that the scan found, unless they are known or were removed meanwhile.
    pub(super) fn add_found(&self, found: Vec<Found>) {
        let totals = {
            let mut state = self.state.lock();
            for blob in found {
                state.add_found(&blob.digest, blob.len, blob.used);
            }
            state.totals()
        };
        self.show(totals);
    }

    /// Notes that a blob is gone.
    pub(super) fn remove(&self, digest: &Digest) {
        if let Some(key) = Key::of(digest) {
            self.remove_key(&key);
        }
    }

    fn remove_key(&self, key: &Key) {
        let totals = {
            let mut state = self.state.lock();
            let len = state.index.remove(key);
            if let Some(len) = len {
                state.readers.removed(&key.start, len);
            }
            if let Some(scan) = &mut state.scan {
                scan.removed.insert(key.clone());
                let len = len.unwrap_or(0);
                scan.expected = scan.expected.map(|bytes| bytes.saturating_sub(len));
            }
            state.totals()
        };
        self.show(totals);
    }

    /// Notes that a blob was used.
    pub(super) fn touch(&self, digest: &Digest, now: SystemTime) {
        if let Some(key) = Key::of(digest) {
            self.state.lock().index.touch(&key, seconds(now));
        }
    }

    /// Notes that a blob of `len` bytes, last used at `modified` as its file says, was opened by someone who reads it now.
    pub(super) fn open(
        self: &Arc<Self>,
        digest: &Digest,
        len: u64,
        modified: SystemTime,
        now: SystemTime,
    ) -> Option<Reading> {
        let key = Key::of(digest)?;
        let mut state = self.state.lock();
        // The scan has not come to it yet.
        state.add_found(digest, len, modified);
        state.index.touch(&key, seconds(now));
        let file = if state.index.find(&key).is_some() {
            state.readers.begin(key.start)
        } else {
            // Removed since it was opened.
            state.readers.begin_orphan(len)
        };
        drop(state);
        Some(Reading::new(Arc::clone(self), key.start, file))
    }

    /// Notes that whoever holds the stage that has become this blob may read it.
    pub(super) fn hold(self: &Arc<Self>, digest: &Digest) -> Option<Reading> {
        let key = Key::of(digest)?;
        let file = self.state.lock().readers.begin(key.start);
        Some(Reading::new(Arc::clone(self), key.start, file))
    }

    /// Takes the last uses that are to be written to disk.
    pub(super) fn take_unwritten(&self) -> Vec<(Digest, SystemTime)> {
        let taken = self.state.lock().index.take_unwritten();
        let digests = taken.into_iter();
        digests
            .filter_map(|(key, used)| Some((key.digest()?, time(used))))
            .collect()
    }

    /// Notes that all blobs are counted.
    pub(super) fn set_scanned(&self) {
        self.state.lock().scan = None;
        self.scanned.send_replace(true);
    }

    /// Tells when all blobs are counted.
    pub(super) fn scanned(&self) -> watch::Receiver<bool> {
        self.scanned.subscribe()
    }

    /// Notes which blobs are manifests.
    pub(super) fn mark_manifests(&self, digests: &[Digest]) {
        let mut state = self.state.lock();
        for key in digests.iter().filter_map(Key::of) {
            state.index.mark_manifest(&key);
        }
    }

    /// Puts what the scan found in the order of its last use, once all of it is counted and the manifests among it are
    /// marked. Blocks for as long as it is much, but nobody else.
    pub(super) fn put_in_order(&self) {
        let mut found = self.state.lock().index.found();
        found.sort_unstable_by(|a, b| b.cmp(a));
        for some in found.chunks(AT_ONCE) {
            self.state.lock().index.place_found(some);
        }
        self.is_ready.send_modify(|ready| ready.is_in_order = true);
    }

    /// Replaces what is pinned, which goes in no case.
    pub(super) fn set_pinned(&self, pinned: DigestSet) {
        self.state.lock().index.set_pinned(pinned);
        self.is_ready
            .send_modify(|ready| ready.are_pins_known = true);
    }

    /// Adds to what is pinned.
    pub(super) fn pin_also(&self, digests: &[Digest]) {
        let mut state = self.state.lock();
        for digest in digests {
            state.index.pinned.insert(digest);
        }
    }

    /// Whether a blob is among what is pinned.
    pub(super) fn is_pinned(&self, digest: &Digest) -> bool {
        self.state.lock().index.pinned.contains(digest)
    }

    /// Has blobs, stored or to come, go only when nothing else is left, until then.
    pub(super) fn spare(&self, digests: &[Digest], until: SystemTime, now: SystemTime) {
        let (until, now) = (seconds(until), seconds(now));
        let keys: Vec<Key> = digests.iter().filter_map(Key::of).collect();
        let mut refused = 0;
        for some in keys.chunks(SPARED_AT_ONCE) {
            let mut state = self.state.lock();
            state.index.sweep_spared(now);
            let spared = some.iter().map(|key| state.index.spare(key, until));
            refused += spared.filter(|is_spared| !is_spared).count();
        }
        if refused > 0 {
            tracing::debug!(refused, "more images asked for at once than are remembered");
        }
    }

    /// Whether enough is known to choose who goes.
    pub(super) fn may_choose(&self) -> bool {
        self.is_ready.borrow().is_complete()
    }

    /// Waits until enough is known to choose who goes.
    pub(super) async fn ready_to_choose(&self) {
        let mut ready = self.is_ready.subscribe();
        // The sender lives as long as this.
        let _ = ready.wait_for(|ready| ready.is_complete()).await;
    }

    /// Chooses up to `most` blobs that are to go; none as long as too little is known to choose.
    pub(super) fn choose(&self, demand: Demand, most: usize, now: SystemTime) -> Vec<Victim> {
        if !self.may_choose() {
            return Vec::new();
        }
        let mut state = self.state.lock();
        let State { index, readers, .. } = &mut *state;
        index.choose(demand, most, seconds(now), readers)
    }

    /// Whether a chosen blob is still to go.
    pub(super) fn is_chosen(&self, victim: &Victim) -> bool {
        let state = self.state.lock();
        state.index.is_chosen(victim, &state.readers)
    }

    /// Notes that a chosen blob is gone.
    pub(super) fn evicted(&self, victim: &Victim) {
        self.remove_key(&victim.key);
    }

    /// Puts blobs back that stay after all, in the order that they were chosen in.
    pub(super) fn put_back(&self, victims: &[Victim], now: SystemTime) {
        // The last chosen go back first.
        for some in victims.rchunks(AT_ONCE) {
            let mut state = self.state.lock();
            let State { index, readers, .. } = &mut *state;
            index.put_back(some, seconds(now), readers);
        }
    }

    /// Puts back a blob that cannot be removed: others are tried first.
    pub(super) fn put_last(&self, victim: &Victim) {
        self.state.lock().index.put_last(victim);
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
            bytes: self.index.bytes(),
            blobs: u64::try_from(self.index.count()).unwrap_or(u64::MAX),
        }
    }

    fn add_found(&mut self, digest: &Digest, len: u64, modified: SystemTime) {
        let (Some(key), Some(scan)) = (Key::of(digest), &self.scan) else {
            return;
        };
        if !scan.removed.contains(&key) {
            let segment = segment_by(modified);
            self.index.add_found(&key, len, seconds(modified), segment);
        }
    }
}

impl Ready {
    fn is_complete(self) -> bool {
        self.is_in_order && self.are_pins_known
    }
}

impl Victim {
    pub(super) fn digest(&self) -> Option<Digest> {
        self.key.digest()
    }
}

/// What a file's mtime tells of its blob: a last use is written in whole seconds, when a blob is used again, and a file
/// that was written once has the time to the nanosecond. Where a file system or a copy has cut that off, all of them
/// count as used again.
fn segment_by(modified: SystemTime) -> Segment {
    let since = modified
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    if since.subsec_nanos() == 0 {
        Segment::Others
    } else {
        Segment::Newcomers
    }
}

fn seconds(time: SystemTime) -> Seconds {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}

fn time(seconds: Seconds) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into())
}

impl Demand {
    /// What nobody has used for `age`.
    pub(super) fn unused_for(age: Duration, now: SystemTime) -> Self {
        let then = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Self::UnusedSince(seconds(then))
    }

    /// What is left of it when so many bytes are chosen or gone.
    pub(super) fn less(self, bytes: u64) -> Self {
        match self {
            Self::Bytes(wanted) => Self::Bytes(wanted.saturating_sub(bytes)),
            Self::UnusedSince(_) => self,
        }
    }
}

/// Blobs that are spared under one lock: others wait for it.
const SPARED_AT_ONCE: usize = 1024;

/// Blobs that are moved under one lock.
const AT_ONCE: usize = 4096;

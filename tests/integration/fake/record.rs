//! What the fake was asked, and what it sent.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use layby::oci::Digest;
use parking_lot::Mutex;

use super::wire::Head;

/// A request that arrived.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Its method.
    pub(crate) method: String,
    /// Its path, without the query.
    pub(crate) path: String,
    /// Its query, empty when there is none.
    pub(crate) query: String,
    headers: Vec<(String, String)>,
    /// Offset in the content of the first byte sent, and how many were.
    start: AtomicU64,
    sent: AtomicU64,
    status: AtomicU64,
    broke: AtomicBool,
}

impl Seen {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            method: head.method.clone(),
            path: head.path.clone(),
            query: head.query.clone(),
            headers: head.headers.clone(),
            start: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            status: AtomicU64::new(0),
            broke: AtomicBool::new(false),
        }
    }

    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter();
        let found = named.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    /// The status it was answered with; 0 before that.
    pub(crate) fn status(&self) -> u64 {
        self.status.load(Ordering::SeqCst)
    }

    /// Bytes of the content that went out, as an interval of offsets; empty for anything but content.
    pub(crate) fn sent(&self) -> Range<u64> {
        if !matches!(self.status(), 200 | 206) {
            return 0..0;
        }
        let start = self.start.load(Ordering::SeqCst);
        start..start + self.sent.load(Ordering::SeqCst)
    }

    /// Whether the script broke its answer off, or let it stall.
    pub(crate) fn is_broken(&self) -> bool {
        self.broke.load(Ordering::SeqCst)
    }

    pub(super) fn broke(&self) {
        self.broke.store(true, Ordering::SeqCst);
    }

    pub(super) fn answered(&self, status: u16) {
        self.status.store(status.into(), Ordering::SeqCst);
    }

    pub(super) fn begins_at(&self, start: u64) {
        self.start.store(start, Ordering::SeqCst);
    }

    pub(super) fn has_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::SeqCst);
    }
}

/// All requests in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Record {
    requests: Mutex<Vec<Arc<Seen>>>,
    connections: AtomicU64,
}

impl Record {
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn add(&self, seen: &Arc<Seen>) {
        self.requests.lock().push(Arc::clone(seen));
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// All requests so far.
    pub(crate) fn all(&self) -> Vec<Arc<Seen>> {
        self.requests.lock().clone()
    }

    /// Requests with this method whose path contains `part`.
    pub(crate) fn of(&self, method: &str, part: &str) -> Vec<Arc<Seen>> {
        let mut all = self.all();
        all.retain(|seen| seen.method == method && seen.path.contains(part));
        all
    }

    /// How many `GET`s named this digest.
    pub(crate) fn gets(&self, digest: &Digest) -> usize {
        self.of("GET", digest.as_str()).len()
    }

    /// How many answers with this content broke off or stalled.
    pub(crate) fn broken(&self, digest: &Digest) -> u64 {
        let gets = self.of("GET", digest.as_str());
        gets.iter().map(|seen| u64::from(seen.is_broken())).sum()
    }

    /// Forgets all requests.
    pub(crate) fn clear(&self) {
        self.requests.lock().clear();
    }

    /// How many bytes of this content were sent more than once.
    pub(crate) fn sent_twice(&self, digest: &Digest) -> u64 {
        let mut sent: Vec<_> = self.of("GET", digest.as_str());
        sent.sort_by_key(|seen| seen.sent().start);
        let (mut frontier, mut twice) = (0, 0);
        for seen in sent {
            let range = seen.sent();
            twice += frontier.min(range.end).saturating_sub(range.start);
            frontier = frontier.max(range.end);
        }
        twice
    }

    /// How many bytes of this content were sent in all.
    pub(crate) fn sent(&self, digest: &Digest) -> u64 {
        let gets = self.of("GET", digest.as_str());
        gets.iter()
            .map(|seen| seen.sent().end - seen.sent().start)
            .sum()
    }
}

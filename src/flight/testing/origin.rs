//! A source that has a blob, and the faults that were asked for.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::scripted::{Failed, NEGATIVE_TTL};
use crate::flight::intervals::Intervals;
use crate::flight::ports::{Body, BoxFuture, FetchError, Fetched, Pace, Source};

/// What goes wrong with one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// There is none, for this reason.
    Refuse(&'static str),
    /// It breaks off after so many bytes.
    Cut(usize),
    /// It ends after so many bytes, as if it were complete.
    End(usize),
    /// It tells this size.
    Size(u64),
}

/// A source that serves `bytes`, piece by piece as they are read.
pub(crate) struct Origin {
    key: &'static str,
    bytes: Bytes,
    faults: Mutex<VecDeque<Fault>>,
    /// Every answer from here on breaks off after so many bytes; 0: none does.
    pub(crate) cuts: AtomicUsize,
    pub(crate) takes_ranges: AtomicBool,
    pub(crate) parallel: AtomicUsize,
    pub(crate) asked: Mutex<Vec<Option<Range<u64>>>>,
    /// At which pace each answer was to be read.
    pub(crate) paces: Mutex<Vec<Pace>>,
    /// Answers that were slowed down to a client's pace.
    pub(crate) slowed: AtomicUsize,
    /// Whether answers can be.
    pub(crate) slows_down: AtomicBool,
    open: AtomicUsize,
    /// Most answers that were not dropped yet at the same time.
    pub(crate) most_open: AtomicUsize,
    sent: Mutex<Intervals>,
    /// Bytes that were sent more than once.
    pub(crate) twice: AtomicU64,
    /// Each piece waits for a permit.
    pub(crate) pieces: Arc<Semaphore>,
}

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key)
    }
}

impl Origin {
    pub(crate) fn new(key: &'static str, bytes: &Bytes) -> Arc<Self> {
        Arc::new(Self {
            key,
            bytes: bytes.clone(),
            faults: Mutex::default(),
            cuts: AtomicUsize::new(0),
            takes_ranges: AtomicBool::new(true),
            parallel: AtomicUsize::new(1),
            asked: Mutex::default(),
            paces: Mutex::default(),
            slowed: AtomicUsize::new(0),
            slows_down: AtomicBool::new(true),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            sent: Mutex::default(),
            twice: AtomicU64::new(0),
            pieces: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        })
    }

    /// The next answer goes wrong in this way.
    pub(crate) fn fails(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }

    /// From here on so many pieces are sent, until more are granted.
    pub(crate) fn holds(&self, pieces: usize) {
        self.pieces.forget_permits(Semaphore::MAX_PERMITS);
        self.pieces.add_permits(pieces);
    }

    /// All that is held is sent.
    pub(crate) fn releases(&self) {
        self.pieces.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Bytes sent at least once.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.lock().len()
    }

    pub(crate) fn asked(&self) -> Vec<Option<Range<u64>>> {
        self.asked.lock().clone()
    }

    fn answer(self: &Arc<Self>, range: Option<Range<u64>>) -> Result<Fetched, FetchError> {
        let len = self.bytes.len();
        let fault = self.faults.lock().pop_front();
        if let Some(Fault::Refuse(why)) = fault {
            return Err(Arc::new(Failed(why)));
        }
        let range = range.filter(|_| self.takes_ranges.load(Ordering::SeqCst));
        let is_part = range.is_some();
        let start = range.as_ref().map_or(0, |range| position(range.start));
        let end = range.map_or(len, |range| position(range.end).min(len));
        assert!(start <= end, "416");
        let cut = match self.cuts.load(Ordering::SeqCst) {
            0 => None,
            bytes => Some(start + bytes),
        };
        let (breaks, ends) = match fault {
            Some(Fault::Cut(bytes)) => (Some(start + bytes), end),
            Some(Fault::End(bytes)) => (None, end.min(start + bytes)),
            _ => (cut, end),
        };
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        Ok(Fetched {
            start: start as u64,
            is_part,
            total: Some(match fault {
                Some(Fault::Size(size)) => size,
                _ => len as u64,
            }),
            body: Box::new(OriginBody {
                origin: Arc::clone(self),
                rest: start..ends,
                breaks,
            }),
        })
    }
}

fn position(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// The source that clients see, since a body outlives the call that asked for it.
#[derive(Debug, Clone)]
pub(crate) struct OriginSource(pub(crate) Arc<Origin>);

impl Source for OriginSource {
    fn key(&self) -> &str {
        self.0.key
    }

    fn parallel(&self) -> usize {
        self.0.parallel.load(Ordering::SeqCst)
    }

    fn negative_ttl(&self) -> Duration {
        NEGATIVE_TTL
    }

    fn fetch(
        &self,
        range: Option<Range<u64>>,
        pace: Pace,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        self.0.asked.lock().push(range.clone());
        self.0.paces.lock().push(pace);
        Box::pin(async move { self.0.answer(range) })
    }

    fn delivered(&self, _: u64) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct OriginBody {
    origin: Arc<Origin>,
    rest: Range<usize>,
    breaks: Option<usize>,
}

impl Body for OriginBody {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, FetchError>>> {
        Box::pin(async {
            let start = self.rest.start;
            if self.breaks.is_some_and(|at| start >= at) && !self.rest.is_empty() {
                return Some(Err(Arc::new(Failed("unavailable")) as FetchError));
            }
            if self.rest.is_empty() {
                return None;
            }
            let permit = self.origin.pieces.acquire().await;
            permit.expect("it is never closed").forget();
            let stop = self.breaks.unwrap_or(usize::MAX).min(self.rest.end);
            let end = stop.min(start + PIECE);
            self.rest.start = end;
            let new = self.origin.sent.lock().insert(start as u64..end as u64);
            let twice = (end - start) as u64 - new;
            self.origin.twice.fetch_add(twice, Ordering::SeqCst);
            Some(Ok(self.origin.bytes.slice(start..end)))
        })
    }

    fn slow_down(&mut self) -> bool {
        let slows_down = self.origin.slows_down.load(Ordering::SeqCst);
        self.origin
            .slowed
            .fetch_add(usize::from(slows_down), Ordering::SeqCst);
        slows_down
    }
}

impl Drop for OriginBody {
    fn drop(&mut self) {
        self.origin.open.fetch_sub(1, Ordering::SeqCst);
    }
}

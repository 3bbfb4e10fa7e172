//! A source that does as it is told, answer by answer.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::flight::ports::{
    Body, BoxFuture, FetchError, Fetched, Pace, Remedy, Source, SourceFailure,
};

/// Why a scripted source failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(pub(crate) &'static str);

impl SourceFailure for Failed {
    fn reason(&self) -> &'static str {
        self.0
    }

    fn remedy(&self) -> Remedy {
        match self.0 {
            "unavailable" => Remedy::Again(Duration::ZERO),
            "rate_limited" => Remedy::Again(Duration::from_secs(30)),
            "denied" => Remedy::Renew,
            _ => Remedy::None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// For how long these sources are banned.
pub(super) const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Sends what the test sends into it.
pub(crate) type Sending = mpsc::Sender<Result<Bytes, FetchError>>;

enum Answer {
    Refuse(&'static str),
    Panic,
    Send {
        start: u64,
        is_part: bool,
        total: Option<u64>,
        body: mpsc::Receiver<Result<Bytes, FetchError>>,
    },
}

/// A source that gives the answers that were put into it, in order.
pub(crate) struct Scripted {
    key: &'static str,
    answers: Mutex<VecDeque<Answer>>,
    pub(crate) asked: Mutex<Vec<Option<Range<u64>>>>,
    /// How long each answer's head had.
    pub(crate) patience: Mutex<Vec<Duration>>,
    pub(crate) delivered: AtomicUsize,
    pub(crate) parallel: AtomicUsize,
    /// The head of each answer waits for a permit.
    pub(crate) heads: Semaphore,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key)
    }
}

impl Scripted {
    pub(crate) fn new(key: &'static str) -> Arc<Self> {
        Arc::new(Self {
            key,
            answers: Mutex::default(),
            asked: Mutex::default(),
            patience: Mutex::default(),
            delivered: AtomicUsize::new(0),
            parallel: AtomicUsize::new(1),
            heads: Semaphore::new(1000),
        })
    }

    pub(crate) fn refuses(&self, why: &'static str) {
        self.answers.lock().push_back(Answer::Refuse(why));
    }

    pub(crate) fn panics(&self) {
        self.answers.lock().push_back(Answer::Panic);
    }

    /// An answer whose body the test sends: the whole blob, or with a `start` beyond 0 the part that was asked for.
    pub(crate) fn sends(&self, start: u64, total: Option<u64>) -> Sending {
        let (sender, body) = mpsc::channel(1000);
        self.answers.lock().push_back(Answer::Send {
            start,
            is_part: start > 0,
            total,
            body,
        });
        sender
    }

    /// An answer with all of `bytes`.
    pub(crate) fn sends_all(&self, bytes: &Bytes) {
        let sending = self.sends(0, Some(bytes.len() as u64));
        for start in (0..bytes.len()).step_by(100_000) {
            let part = bytes.slice(start..bytes.len().min(start + 100_000));
            sending.try_send(Ok(part)).unwrap();
        }
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Source for Scripted {
    fn key(&self) -> &str {
        self.key
    }

    fn parallel(&self) -> usize {
        self.parallel.load(Ordering::SeqCst)
    }

    fn negative_ttl(&self) -> Duration {
        NEGATIVE_TTL
    }

    fn fetch(
        &self,
        range: Option<Range<u64>>,
        _pace: Pace,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        self.patience.lock().push(deadline - Instant::now());
        self.asked.lock().push(range);
        let answer = self.answers.lock().pop_front();
        Box::pin(async move {
            self.heads
                .acquire()
                .await
                .expect("it is never closed")
                .forget();
            match answer {
                None => Err(Arc::new(Failed("no answer left")) as FetchError),
                Some(Answer::Refuse(why)) => Err(Arc::new(Failed(why)) as FetchError),
                Some(Answer::Panic) => panic!("on purpose"),
                Some(Answer::Send {
                    start,
                    is_part,
                    total,
                    body,
                }) => Ok(Fetched {
                    start,
                    is_part,
                    total,
                    body: Box::new(ChannelBody(body)),
                }),
            }
        })
    }

    fn delivered(&self, _: u64) -> BoxFuture<'_, ()> {
        self.delivered.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {})
    }
}

struct ChannelBody(mpsc::Receiver<Result<Bytes, FetchError>>);

impl Body for ChannelBody {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, FetchError>>> {
        Box::pin(self.0.recv())
    }

    fn slow_down(&mut self) -> bool {
        true
    }
}

//! The bytes of a source in order, from a position on, over broken connections.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use crate::flight::Backoff;
use crate::flight::ports::{Body, FetchError, Fetched, Pace, Remedy, Source, SourceFailure};

/// New bytes after which what went wrong before is forgotten.
const PROGRESS: u64 = 64 * 1024;

/// Reads a part of a blob from one source, for one client.
pub(super) struct Stream {
    source: Arc<dyn Source>,
    header_timeout: Duration,
    /// What has not been read yet; up to `u64::MAX` where the end is not known.
    rest: Range<u64>,
    total: Option<u64>,
    answer: Option<Answer>,
    backoff: Backoff,
    /// Bytes since the last progress.
    since: u64,
    /// Whether it was asked again after a denial since then.
    renewed: bool,
    pause: Option<Instant>,
}

struct Answer {
    /// Where the next bytes of the body belong.
    at: u64,
    body: Box<dyn Body>,
}

/// An answer that is not what was asked for.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error("the blob was {known} bytes long before and is {told} now")]
    Size { known: u64, told: u64 },
    #[error("bytes up to {end} were asked for, and the blob has {total}")]
    Beyond { end: u64, total: u64 },
    #[error("an answer begins behind the bytes that were asked for")]
    Gap,
    #[error("the body ended before the last byte that was asked for")]
    Short,
}

impl SourceFailure for Misfit {
    fn reason(&self) -> &'static str {
        match self {
            Self::Size { .. } | Self::Beyond { .. } | Self::Gap => "corrupt",
            Self::Short => "unavailable",
        }
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::Size { .. } | Self::Beyond { .. } | Self::Gap => Remedy::None,
            Self::Short => Remedy::Again(Duration::ZERO),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Stream {
    /// The bytes of `range`, an end of `u64::MAX` standing for the blob's. `total` is its size, if known; each request has
    /// `header_timeout` for the head of its answer.
    pub(super) fn new(
        source: Arc<dyn Source>,
        range: Range<u64>,
        total: Option<u64>,
        header_timeout: Duration,
    ) -> Self {
        let end = range.end.min(total.unwrap_or(u64::MAX));
        Self {
            source,
            header_timeout,
            rest: range.start..end,
            total,
            answer: None,
            backoff: Backoff::proven(),
            since: 0,
            renewed: false,
            pause: None,
        }
    }

    /// Begins with an answer that is at hand.
    pub(super) fn with(mut self, answer: Option<Fetched>) -> Self {
        self.answer = answer.map(|answer| Answer {
            at: answer.start,
            body: answer.body,
        });
        self
    }

    /// The next bytes, never empty; `None` at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, FetchError>> {
        while !self.rest.is_empty() {
            match self.advance().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Some(Ok(bytes)),
                Err(error) => {
                    self.answer = None;
                    if !self.tries_again(&error) {
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    /// The next bytes that are wanted, if there are some among the next that come.
    async fn advance(&mut self) -> Result<Bytes, FetchError> {
        if let Some(pause) = self.pause {
            sleep_until(pause).await;
            self.pause = None;
        }
        if self.answer.is_none() {
            let deadline = Instant::now() + self.header_timeout;
            let asked = self.source.fetch(self.wanted(), Pace::Client, deadline);
            let answer = asked.await?;
            self.check(&answer)?;
            self.answer = Some(Answer {
                at: answer.start,
                body: answer.body,
            });
        }
        let Some(answer) = &mut self.answer else {
            return Ok(Bytes::new());
        };
        match answer.body.next().await {
            Some(Ok(bytes)) => {
                let from = answer.at;
                answer.at = from.saturating_add(bytes.len() as u64);
                Ok(self.accept(from, &bytes))
            }
            Some(Err(error)) => Err(error),
            None if self.rest.end == u64::MAX && answer.at >= self.rest.start => {
                self.rest.end = self.rest.start;
                Ok(Bytes::new())
            }
            None => Err(Arc::new(Misfit::Short)),
        }
    }

    /// The range to ask for; `None`: everything, without one.
    fn wanted(&self) -> Option<Range<u64>> {
        let is_everything = self.rest.start == 0 && self.rest.end >= self.total.unwrap_or(u64::MAX);
        (!is_everything).then(|| self.rest.clone())
    }

    fn check(&mut self, answer: &Fetched) -> Result<(), FetchError> {
        if answer.start > self.rest.start {
            return Err(Arc::new(Misfit::Gap));
        }
        if let (Some(known), Some(told)) = (self.total, answer.total)
            && known != told
        {
            return Err(Arc::new(Misfit::Size { known, told }));
        }
        self.total = self.total.or(answer.total);
        let total = self.total.unwrap_or(u64::MAX);
        if self.rest.end != u64::MAX && total < self.rest.end {
            let end = self.rest.end;
            return Err(Arc::new(Misfit::Beyond { end, total }));
        }
        self.rest.end = self.rest.end.min(total);
        Ok(())
    }

    /// The wanted part of `bytes`, which belong at `from`: a source that ignores ranges sends more than was asked for,
    /// before and after.
    fn accept(&mut self, from: u64, bytes: &Bytes) -> Bytes {
        let len = bytes.len() as u64;
        let start = self.rest.start.saturating_sub(from).min(len);
        let end = self.rest.end.saturating_sub(from).clamp(start, len);
        self.rest.start += end - start;
        self.since += end - start;
        if self.since >= PROGRESS {
            self.since = 0;
            self.renewed = false;
            self.backoff = Backoff::proven();
        }
        let within = |position: u64| usize::try_from(position).unwrap_or(bytes.len());
        bytes.slice(within(start)..within(end))
    }

    /// Whether it is worth asking again, after a wait.
    fn tries_again(&mut self, error: &FetchError) -> bool {
        let asked = match error.remedy() {
            Remedy::Again(wait) if wait <= self.header_timeout => wait,
            Remedy::Renew if !self.renewed => {
                self.renewed = true;
                Duration::ZERO
            }
            _ => return false,
        };
        let wait = self.backoff.failed(asked, fastrand::f64());
        self.pause = wait.map(|wait| Instant::now() + wait);
        wait.is_some()
    }
}

//! A blob that passes the store by: no room for it, too large, a disk that fails, or a digest that cannot be verified.
//!
//! A reader of the whole still never gets a complete body that does not match: the last bytes are held back, in memory this
//! time, until the digest is known.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::flight::ports::{Body, BoxFuture, Chunk, FetchError, Fetched, Source};
use crate::oci::{Digest, Hasher};

use crate::proxy::{BlobContent, BlobReader, BrokenBody};

/// Bytes held back from a reader of the whole.
const TAIL: usize = 64 * 1024;
/// For the head of a further request, made after the client's status line is out.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// Content that comes straight from a source.
#[derive(Debug)]
pub(super) struct Bypass {
    source: Arc<dyn Source>,
    digest: Digest,
    total: Option<u64>,
    /// The answer that told the size, for the first reader of everything.
    first: Mutex<Option<Fetched>>,
}

impl Bypass {
    pub(super) fn new(source: Arc<dyn Source>, digest: Digest, first: Fetched) -> Self {
        Self {
            source,
            digest,
            total: first.total,
            first: Mutex::new(Some(first)),
        }
    }
}

impl BlobContent for Bypass {
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        let everything = match (&range, self.total) {
            (None, _) => true,
            (Some(range), Some(total)) => range.start == 0 && range.end >= total,
            (Some(_), None) => false,
        };
        if everything {
            Box::new(WholeReader {
                hasher: Hasher::new(self.digest.algorithm()),
                digest: self.digest.clone(),
                open: Open::new(Arc::clone(&self.source), self.first.lock().take(), None),
                held: VecDeque::new(),
                held_bytes: 0,
                ended: false,
            })
        } else {
            // Unread, it would hold up others on its connection.
            drop(self.first.lock().take());
            let range = range.unwrap_or(0..u64::MAX);
            Box::new(PartReader {
                open: Open::new(Arc::clone(&self.source), None, Some(range.clone())),
                position: 0,
                range,
            })
        }
    }
}

/// A body, asked for when it is first read.
struct Open {
    source: Arc<dyn Source>,
    range: Option<Range<u64>>,
    start: u64,
    body: Option<Box<dyn Body>>,
}

impl Open {
    fn new(source: Arc<dyn Source>, first: Option<Fetched>, range: Option<Range<u64>>) -> Self {
        let (start, body) = first.map_or((0, None), |first| (first.start, Some(first.body)));
        Self {
            source,
            range,
            start,
            body,
        }
    }

    async fn body(&mut self) -> Result<&mut Box<dyn Body>, FetchError> {
        let body = if let Some(body) = self.body.take() {
            body
        } else {
            let deadline = Instant::now() + HEAD_TIMEOUT;
            let fetched = self.source.fetch(self.range.clone(), deadline).await?;
            self.start = fetched.start;
            fetched.body
        };
        Ok(self.body.insert(body))
    }

    async fn next(&mut self) -> Option<Result<Bytes, BrokenBody>> {
        match self.body().await {
            Ok(body) => body
                .next()
                .await
                .map(|next| next.map_err(|error| broken(&error))),
            Err(error) => Some(Err(broken(&error))),
        }
    }
}

fn broken(error: &FetchError) -> BrokenBody {
    BrokenBody {
        reason: error.reason(),
        message: error.to_string(),
    }
}

struct WholeReader {
    open: Open,
    /// `None` for an algorithm that cannot be computed: there is nothing to compare.
    hasher: Option<Hasher>,
    digest: Digest,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    ended: bool,
}

impl WholeReader {
    async fn advance(&mut self) -> Option<Result<Chunk, BrokenBody>> {
        loop {
            let front = self.held.front().map_or(0, Bytes::len);
            if front > 0 && (self.ended || self.held_bytes - front >= TAIL) {
                self.held_bytes -= front;
                return self.held.pop_front().map(|bytes| Ok(Chunk::Bytes(bytes)));
            }
            if self.ended {
                return None;
            }
            match self.open.next().await {
                Some(Ok(bytes)) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&bytes);
                    }
                    self.held_bytes += bytes.len();
                    self.held.push_back(bytes);
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    if self
                        .hasher
                        .take()
                        .is_some_and(|hasher| hasher.finish() != self.digest)
                    {
                        return Some(Err(BrokenBody {
                            reason: "corrupt",
                            message: format!("what came does not match {}", self.digest),
                        }));
                    }
                    self.ended = true;
                }
            }
        }
    }
}

impl BlobReader for WholeReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(self.advance())
    }

    fn source(&self) -> &'static str {
        "bypass"
    }
}

struct PartReader {
    open: Open,
    /// Where the next bytes of the body belong; meaningful once the body is open.
    position: u64,
    range: Range<u64>,
}

impl PartReader {
    async fn advance(&mut self) -> Option<Result<Chunk, BrokenBody>> {
        if self.open.body.is_none() {
            if let Err(error) = self.open.body().await {
                return Some(Err(broken(&error)));
            }
            self.position = self.open.start;
        }
        while self.position < self.range.end {
            let bytes = match self.open.next().await? {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error)),
            };
            let from = self.position;
            self.position += bytes.len() as u64;
            // A source that ignores ranges sends more than was asked for, before and after.
            let start = self
                .range
                .start
                .saturating_sub(from)
                .min(bytes.len() as u64);
            let end = self.range.end.saturating_sub(from).min(bytes.len() as u64);
            let within = |position: u64| usize::try_from(position).unwrap_or(bytes.len());
            if start < end {
                return Some(Ok(Chunk::Bytes(bytes.slice(within(start)..within(end)))));
            }
        }
        None
    }
}

impl BlobReader for PartReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(self.advance())
    }

    fn source(&self) -> &'static str {
        "bypass"
    }
}

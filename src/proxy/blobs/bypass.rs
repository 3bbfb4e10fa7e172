//! A blob that passes the store by: no room for it, too large, a disk that fails before or during its fetch, or a digest
//! that cannot be verified.
//!
//! A reader of the whole still never gets a complete body that does not match: the last bytes are held back, in memory this
//! time, until the digest is known.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::flight::Wreck;
use crate::flight::ports::{BoxFuture, Chunk, FetchError, Fetched, Source};
use crate::oci::{Digest, Hasher};
use crate::proxy::{BlobContent, BlobReader, BrokenBody};

use super::stream::Stream;

/// Bytes held back from a reader of the whole.
const TAIL: u64 = 64 * 1024;

/// Where the bytes come from that pass the store by.
#[derive(Debug, Clone)]
pub(super) struct Supply {
    pub(super) source: Arc<dyn Source>,
    pub(super) digest: Digest,
    /// For the head of each further answer.
    pub(super) header_timeout: Duration,
}

impl Supply {
    fn stream(&self, range: Range<u64>, total: Option<u64>) -> Stream {
        Stream::new(Arc::clone(&self.source), range, total, self.header_timeout)
    }

    /// The rest of a body that was read from a flight up to `position` when the disk failed under it.
    pub(super) fn rescue(
        &self,
        wreck: &Arc<Wreck>,
        position: u64,
        end: Option<u64>,
        whole: bool,
    ) -> Box<dyn BlobReader> {
        if !whole {
            return Box::new(PartReader {
                supply: self.clone(),
                rest: position..end.unwrap_or(u64::MAX),
                wreck: Some(Arc::clone(wreck)),
                stream: None,
            });
        }
        let (hasher, hashed) = wreck.hash();
        Box::new(WholeReader {
            stream: self.stream(hashed..u64::MAX, wreck.size()),
            hasher: Some(hasher),
            digest: self.digest.clone(),
            sent: position,
            received: hashed,
            written: hashed,
            wreck: Some(Arc::clone(wreck)),
            held: VecDeque::new(),
            is_verified: false,
        })
    }
}

/// Content that comes straight from a source.
#[derive(Debug)]
pub(super) struct Bypass {
    supply: Supply,
    total: Option<u64>,
    /// The answer that told the size, for the first reader of everything.
    first: Mutex<Option<Fetched>>,
}

impl Bypass {
    pub(super) fn new(supply: Supply, first: Fetched) -> Self {
        Self {
            supply,
            total: first.total,
            first: Mutex::new(Some(first)),
        }
    }
}

impl BlobContent for Bypass {
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        let is_everything = match (&range, self.total) {
            (None, _) => true,
            (Some(range), Some(total)) => range.start == 0 && range.end >= total,
            (Some(_), None) => false,
        };
        // Unread, it would hold up others on its connection.
        let first = self.first.lock().take().filter(|_| is_everything);
        if !is_everything {
            return Box::new(PartReader {
                supply: self.supply.clone(),
                rest: range.unwrap_or(0..u64::MAX),
                wreck: None,
                stream: None,
            });
        }
        let digest = &self.supply.digest;
        Box::new(WholeReader {
            stream: self.supply.stream(0..u64::MAX, self.total).with(first),
            hasher: Hasher::new(digest.algorithm()),
            digest: digest.clone(),
            sent: 0,
            received: 0,
            written: 0,
            wreck: None,
            held: VecDeque::new(),
            is_verified: false,
        })
    }
}

/// Reads everything, and lets go of the end only when the digest matches.
struct WholeReader {
    /// Follows on what was hashed.
    stream: Stream,
    /// `None` for an algorithm that cannot be computed: there is nothing to compare.
    hasher: Option<Hasher>,
    digest: Digest,
    /// Position of the client.
    sent: u64,
    /// Up to here the bytes are in the hash …
    received: u64,
    /// … and up to here they are on the disk that failed, if the client needs them still.
    written: u64,
    wreck: Option<Arc<Wreck>>,
    /// What the client has not been sent of the stream's bytes.
    held: VecDeque<Bytes>,
    is_verified: bool,
}

impl WholeReader {
    async fn advance(&mut self) -> Option<Result<Chunk, BrokenBody>> {
        loop {
            if let Some(chunk) = self.release() {
                return Some(Ok(chunk));
            }
            if self.is_verified {
                return None;
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.take_in(bytes),
                Some(Err(error)) => return Some(Err(broken(&error))),
                None => {
                    let hasher = self.hasher.take();
                    if hasher.is_some_and(|hasher| hasher.finish() != self.digest) {
                        return Some(Err(BrokenBody {
                            reason: "corrupt",
                            message: format!("what came does not match {}", self.digest),
                        }));
                    }
                    self.is_verified = true;
                }
            }
        }
    }

    /// The next bytes that the client may have.
    fn release(&mut self) -> Option<Chunk> {
        let limit = if self.is_verified {
            self.received
        } else {
            self.received.saturating_sub(TAIL)
        };
        if self.sent < self.written {
            let range = self.sent..limit.min(self.written);
            let chunk = self.wreck.as_ref()?.chunk(range)?;
            self.sent += chunk.len();
            return Some(chunk);
        }
        let front = self.held.front()?.len() as u64;
        if self.sent + front > limit {
            return None;
        }
        self.sent += front;
        self.held.pop_front().map(Chunk::Bytes)
    }

    fn take_in(&mut self, mut bytes: Bytes) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        // The client may be ahead of the hash.
        let known = self.sent.saturating_sub(self.received);
        self.received += bytes.len() as u64;
        let known = usize::try_from(known).map_or(bytes.len(), |known| known.min(bytes.len()));
        let rest = bytes.split_off(known);
        if !rest.is_empty() {
            self.held.push_back(rest);
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

/// Reads a part, from the disk that failed as far as it has it.
struct PartReader {
    supply: Supply,
    rest: Range<u64>,
    wreck: Option<Arc<Wreck>>,
    /// Brings what the disk does not have, up to what it has.
    stream: Option<Stream>,
}

impl PartReader {
    async fn advance(&mut self) -> Option<Result<Chunk, BrokenBody>> {
        while !self.rest.is_empty() {
            if let Some(stream) = &mut self.stream {
                match stream.next().await {
                    Some(Ok(bytes)) => {
                        self.rest.start += bytes.len() as u64;
                        return Some(Ok(Chunk::Bytes(bytes)));
                    }
                    Some(Err(error)) => return Some(Err(broken(&error))),
                    None => self.stream = None,
                }
                if self.rest.end == u64::MAX {
                    return None;
                }
            }
            let written = self.wreck.as_ref();
            if let Some(chunk) = written.and_then(|wreck| wreck.chunk(self.rest.clone())) {
                self.rest.start += chunk.len();
                return Some(Ok(chunk));
            }
            let next = written.and_then(|wreck| wreck.next_written(self.rest.start));
            let end = next.map_or(self.rest.end, |next| next.min(self.rest.end));
            self.stream = Some(self.supply.stream(self.rest.start..end, None));
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

fn broken(error: &FetchError) -> BrokenBody {
    BrokenBody {
        reason: error.reason(),
        message: error.to_string(),
    }
}

//! A blob for the server to send, wherever its bytes come from.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::flight::ports::{Blob, BoxFuture, Chunk};

use super::CacheOutcome;

/// A blob that can be read: its size, and readers of its bytes.
#[derive(Debug)]
pub struct BlobAnswer {
    /// Size in bytes; `None` while an upstream that does not announce it is still sending.
    pub len: Option<u64>,
    /// What the cache did.
    pub outcome: CacheOutcome,
    /// Where the bytes are; `None` for a `HEAD`.
    content: Option<Arc<dyn BlobContent>>,
}

/// Where a blob's bytes come from.
pub trait BlobContent: Send + Sync + fmt::Debug {
    /// A reader of `range`, or of everything. The range lies within the blob.
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader>;
}

/// Reads a blob's bytes in order. Dropping it tells the fetch that this client has left.
pub trait BlobReader: Send {
    /// The next bytes, never empty; `None` at the end. After an error the connection must be broken. Safe to cancel.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>>;

    /// Where the bytes come from: `cache`, `flight` or `bypass`, for metrics.
    fn source(&self) -> &'static str;
}

/// A body that cannot be finished, after its status line has gone out: the connection has to be broken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct BrokenBody {
    /// Short name for logs.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

impl BlobAnswer {
    /// The size alone.
    pub fn head(len: u64, outcome: CacheOutcome) -> Self {
        Self {
            len: Some(len),
            outcome,
            content: None,
        }
    }

    /// A blob with bytes.
    pub fn new(len: Option<u64>, outcome: CacheOutcome, content: Arc<dyn BlobContent>) -> Self {
        Self {
            len,
            outcome,
            content: Some(content),
        }
    }

    /// A committed blob.
    pub fn stored(blob: Arc<dyn Blob>, outcome: CacheOutcome) -> Self {
        Self::new(Some(blob.len()), outcome, Arc::new(StoredContent(blob)))
    }

    /// A reader of `range`, or of everything; `None` after a `HEAD`.
    pub fn reader(&self, range: Option<Range<u64>>) -> Option<Box<dyn BlobReader>> {
        self.content.as_ref().map(|content| content.reader(range))
    }
}

#[derive(Debug)]
struct StoredContent(Arc<dyn Blob>);

impl BlobContent for StoredContent {
    fn reader(&self, range: Option<Range<u64>>) -> Box<dyn BlobReader> {
        let rest = range.unwrap_or(0..self.0.len());
        Box::new(StoredReader {
            blob: Arc::clone(&self.0),
            rest,
        })
    }
}

struct StoredReader {
    blob: Arc<dyn Blob>,
    rest: Range<u64>,
}

impl BlobReader for StoredReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
        Box::pin(async {
            if self.rest.is_empty() {
                return None;
            }
            match self.blob.read(self.rest.clone()).await {
                Ok(chunk) => {
                    self.rest.start += chunk.len();
                    Some(Ok(chunk))
                }
                Err(error) => Some(Err(BrokenBody {
                    reason: "disk",
                    message: format!("a stored blob cannot be read: {error}"),
                })),
            }
        })
    }

    fn source(&self) -> &'static str {
        "cache"
    }
}

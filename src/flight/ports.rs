//! What the fetch needs of the world: a place for blobs, and sources of bytes. `proxy/` adapts disk and upstreams to
//! these.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::oci::Digest;

/// A boxed future, so that the traits can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Content by digest.
pub trait Blobs: Send + Sync + fmt::Debug + 'static {
    /// The committed blob, if it is there.
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Arc<dyn Blob>>>>;

    /// How many blobs were committed so far, those included whose [`Blobs::commit`] has returned: what [`Blobs::open`] did not
    /// find is not there yet, unless there are more now than before it was called.
    fn commits(&self) -> u64;

    /// Whether it is known without a look at the disk that the blob is not there.
    fn lacks(&self, digest: &Digest) -> bool;

    /// What an earlier fetch left under this id, with the bytes that are still good; `None`: nothing. Waits for whoever
    /// holds it to close it.
    fn resume<'a>(
        &'a self,
        id: &'a StageId,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Stage>>, StageError>>;

    /// A new, empty place to write `len` bytes to; `None`: as many as come. What was left under this id is thrown away.
    /// Fails with [`StageError::NoRoom`] where the limits have no place for them.
    fn stage<'a>(
        &'a self,
        id: &'a StageId,
        len: Option<u64>,
    ) -> BoxFuture<'a, Result<Arc<dyn Stage>, StageError>>;

    /// Makes the stage, whose `len` bytes were verified against `digest`, the committed blob. When it returns, the blob
    /// is durable and [`Blobs::open`] finds it.
    fn commit<'a>(
        &'a self,
        stage: Arc<dyn Stage>,
        len: u64,
        digest: &'a Digest,
    ) -> BoxFuture<'a, io::Result<()>>;
}

/// Committed content. Stays readable while it is held, whatever happens to its name.
pub trait Blob: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, or a first part of them that is not empty.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Chunk>>;
}

/// Bytes on their way out.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// In memory.
    Bytes(Bytes),
    /// In a local file, for the sender to choose how to send them.
    File(FileSlice),
}

impl Chunk {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(slice) => slice.range.end.saturating_sub(slice.range.start),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A part of an open local file.
#[derive(Debug, Clone)]
pub struct FileSlice {
    /// The file, open for reading at positions.
    pub file: Arc<File>,
    /// The part: within the file's bytes.
    pub range: Range<u64>,
    /// What counts the file as open, if anything does. Behind the file, so that it goes after that is closed.
    pub hold: Option<Hold>,
}

/// Kept by all who may have a file open, for whoever counts them.
pub type Hold = Arc<dyn std::any::Any + Send + Sync>;

/// Names a stage, over restarts too: whoever fetches the same thing later gives the same name. Opaque: 64 lower-case
/// hexadecimal digits that say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StageId(String);

impl StageId {
    /// The id of what is described by these words, in this order.
    pub fn of(words: &[&str]) -> Self {
        let mut text = String::new();
        for word in words {
            text.push_str(word);
            text.push('\n');
        }
        Self(Digest::sha256(text.as_bytes()).encoded().to_owned())
    }

    /// The id of the one stage that a blob of this upstream is fetched into, for whichever repositories.
    pub fn of_blob(upstream: &str, digest: &Digest) -> Self {
        Self::of(&[upstream, digest.as_str()])
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What becomes of a stage that is closed without a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Its bytes are good: a later fetch may go on from them. A stage without a length, or too small to be worth it, is
    /// removed all the same.
    Resumable,
    /// Its bytes are worth nothing.
    Nothing,
}

/// A place that a fetch writes to. Dropped without a commit and without being closed, it is closed as
/// [`Leave::Resumable`].
///
/// Writes come from one thread at a time; reads of what was written may come from any, and go on when the stage is
/// committed, closed, or taken up by a later fetch.
pub trait Stage: Send + Sync + fmt::Debug {
    /// The length it was made for.
    fn len(&self) -> Option<u64>;

    /// Whether it was made for no bytes.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The bytes that it held when [`Blobs::resume`] gave it: sorted, disjoint, and checked to be what was written.
    fn present(&self) -> Vec<Range<u64>>;

    /// Writes `parts`, one behind the other, from `offset` on. Blocks. [`io::ErrorKind::StorageFull`] where there is no room;
    /// an error once it is closed.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Fills `buffer` from `offset`, of bytes that are there. Blocks.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The bytes of `range`, all of which are there, for sending.
    fn chunk(&self, range: Range<u64>) -> Chunk;

    /// Ends the writing and gives the id free for the next [`Blobs::resume`]. Never blocks; only the first call counts.
    fn close(&self, leave: Leave);

    /// For the store's own use at commit.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// Why there is no stage.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The limits leave no room for it.
    #[error("no room for {needed} bytes")]
    NoRoom {
        /// What was asked for.
        needed: u64,
    },
    /// The disk failed.
    #[error("the data directory cannot be written")]
    Io(#[from] io::Error),
}

/// Where a blob's bytes may be had from: one repository of one upstream.
pub trait Source: Send + Sync + fmt::Debug {
    /// Tells sources apart within a flight: the repository.
    fn key(&self) -> &str;

    /// How many requests for one blob may be under way at once while it is filled in order.
    fn parallel(&self) -> usize;

    /// For how long others are asked before it, for a blob of which it sent wrong bytes.
    fn negative_ttl(&self) -> Duration;

    /// Asks for the bytes from `range.start` on; `None`: the whole blob, without a `Range`. Returns when the answer's
    /// head is there, before `deadline`. Its body will be read at this pace.
    fn fetch(
        &self,
        range: Option<Range<u64>>,
        pace: Pace,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Fetched, FetchError>>;

    /// Called once the blob is committed, on each source that answered for it: its repository is proven to have it, and it
    /// has `len` bytes.
    fn delivered(&self, len: u64) -> BoxFuture<'_, ()>;
}

/// Who decides how fast a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nobody: it is stored as fast as it comes.
    Stored,
    /// The one client that it goes to. However many such there are, and however slow, they must not stand in the way of
    /// what is stored.
    Client,
}

/// An answer whose body is still to come.
pub struct Fetched {
    /// Offset of the body's first byte: the range's start, or 0 where the range was ignored.
    pub start: u64,
    /// Whether it is the part that was asked for, and not the whole blob: the range was not ignored.
    pub is_part: bool,
    /// Length of the whole blob, if the answer tells.
    pub total: Option<u64>,
    /// The bytes.
    pub body: Box<dyn Body>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("start", &self.start)
            .field("is_part", &self.is_part)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// Bytes as they arrive.
pub trait Body: Send {
    /// The next bytes, never empty; `None` at a clean end. Fails when they break off, stall or are more or fewer than
    /// announced. Safe to cancel.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, FetchError>>>;

    /// From here on it is read at [`Pace::Client`] instead of [`Pace::Stored`], if that can be at once; whether it can. Where
    /// not, it is to be dropped, and asked for anew.
    fn slow_down(&mut self) -> bool;
}

/// Why a source gave nothing, or no more. Shared by all readers of a flight, hence `Arc` where they are kept.
pub type FetchError = Arc<dyn SourceFailure>;

/// What a flight must know of a source's failure; everything else is for whoever answers the client.
pub trait SourceFailure: std::error::Error + Send + Sync + 'static {
    /// Short name for logs and metrics.
    fn reason(&self) -> &'static str;

    /// What can be done about it.
    fn remedy(&self) -> Remedy;

    /// For whoever knows the concrete type.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What can be done about a source's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Ask again, no sooner than after so long.
    Again(Duration),
    /// Ask again, once: a signature or token may have expired.
    Renew,
    /// Nothing: asking again would bring the same.
    None,
}

//! Blobs: `GET` and `HEAD` of `/v2/<name>/blobs/<digest>`, whole or in part (distribution-spec, "Pulling blobs").

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{HeaderValue, Method};
use tokio::time::{Instant, timeout_at};

use super::Error;
use super::answer::{Reply, parse_number};
use super::client::{Asking, Call, Upstream};
use super::health::{Load, Tries, Turn};
use super::net::Body;
use crate::oci::{ContentRange, Digest, RepoName};
use crate::telemetry::Metrics;

/// What the upstream tells of a blob without sending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Its length in bytes.
    pub len: u64,
}

/// A blob, or a part of one, on its way.
#[derive(Debug)]
pub struct BlobAnswer {
    /// Offset of the first byte: what was asked for, or 0 where the upstream ignored the range.
    pub start: u64,
    /// Whether it is what was asked for of a range (`206`), and not the whole blob.
    pub is_part: bool,
    /// Length of the whole blob, where the answer tells.
    pub total: Option<u64>,
    /// The bytes.
    pub body: BlobBody,
}

/// The bytes of a blob as they arrive.
pub struct BlobBody {
    from: String,
    body: Body,
    /// Bytes still to come; `None` where the answer did not tell how many there are.
    left: Option<u64>,
    stall: Stall,
    count: Count,
    /// The request is under way until this is dropped.
    turn: Option<Turn>,
}

impl Upstream {
    /// Asks how long a blob is, and with that whether the repository has it. Where `HEAD` is refused or tells no length
    /// that can be, the first byte is asked for.
    pub async fn head_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        call: &Call,
    ) -> Result<BlobHead, Error> {
        match self.ask_small(Method::HEAD, repository, digest, call).await {
            Ok(reply) if reply.status() == 200 => {
                reply.check_content()?;
                let is_empty = || Digest::of(digest.algorithm(), b"").as_ref() == Some(digest);
                if let Some(len) = reply.content_length()
                    && (len > 0 || is_empty())
                {
                    return Ok(BlobHead { len });
                }
            }
            // Signed URLs are often good for GET alone, and some registries refuse HEAD (PROTOCOL, section 5).
            Ok(_) | Err(Error::Invalid { .. } | Error::Denied { .. }) => {}
            Err(error) => return Err(error),
        }
        let reply = self
            .ask_small(Method::GET, repository, digest, call)
            .await?;
        if let Some(len) = length_of_empty(&reply) {
            return Ok(BlobHead { len });
        }
        let parts = Parts::of(&reply, Some(&(0..1)))?;
        let len = parts.total.ok_or_else(|| {
            Error::invalid(format!("{} does not tell how long the blob is", reply.from))
        })?;
        if reply.status() == 206 {
            reply.response.into_body().discard();
        }
        Ok(BlobHead { len })
    }

    /// Asks for the head of a blob, or with `GET` for its first byte.
    async fn ask_small(
        &self,
        method: Method,
        repository: &RepoName,
        digest: &Digest,
        call: &Call,
    ) -> Result<Reply, Error> {
        let first_byte = HeaderValue::from_static("bytes=0-0");
        let range = (method == Method::GET).then_some(first_byte);
        let mut tries = Tries::until(call.deadline);
        loop {
            let asking = asking(method.clone(), repository, digest, range.clone());
            match self.ask(asking, Load::Small, call).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    /// Asks for a blob, or for the bytes of `range`; an end of `u64::MAX` means all that follow. Returns when the head
    /// of the answer is there and makes sense.
    pub async fn get_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        range: Option<Range<u64>>,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        self.ask_body(repository, digest, range, Load::Body, call)
            .await
    }

    /// The same for a body that is read at the pace of one client: it takes no place from those that are read as fast as
    /// they come.
    pub async fn pass_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        range: Option<Range<u64>>,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        self.ask_body(repository, digest, range, Load::Passing, call)
            .await
    }

    async fn ask_body(
        &self,
        repository: &RepoName,
        digest: &Digest,
        range: Option<Range<u64>>,
        load: Load,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        let header = range.as_ref().map(range_header).transpose()?;
        let asking = asking(Method::GET, repository, digest, header);
        let reply = self.ask(asking, load, call).await?;
        let parts = Parts::of(&reply, range.as_ref())?;
        Ok(BlobAnswer {
            start: parts.start,
            is_part: parts.is_part,
            total: parts.total,
            body: BlobBody {
                from: reply.from,
                body: reply.response.into_body(),
                left: parts.len,
                stall: Stall::new(self.stall_timeout),
                count: Count {
                    upstream: self.name().as_str().into(),
                    metrics: Arc::clone(&self.metrics),
                    bytes: 0,
                },
                turn: reply.turn,
            },
        })
    }
}

fn asking<'a>(
    method: Method,
    repository: &'a RepoName,
    digest: &Digest,
    range: Option<HeaderValue>,
) -> Asking<'a> {
    Asking {
        kind: if method == Method::HEAD {
            "blob_head"
        } else {
            "blob"
        },
        method,
        repository,
        path: format!("blobs/{digest}"),
        query: "",
        accept: None,
        range,
    }
}

fn range_header(range: &Range<u64>) -> Result<HeaderValue, Error> {
    let text = match (range.start, range.end) {
        (start, u64::MAX) => format!("bytes={start}-"),
        (start, end) if start < end => format!("bytes={start}-{}", end - 1),
        (start, end) => {
            return Err(Error::invalid(format!(
                "{start}..{end} is no range of bytes"
            )));
        }
    };
    HeaderValue::try_from(text).map_err(|_| Error::invalid("no range of bytes"))
}

/// 0, if the answer is that of a registry asked for the first byte of an empty blob.
fn length_of_empty(reply: &Reply) -> Option<u64> {
    let total = reply
        .header(CONTENT_RANGE)?
        .trim()
        .strip_prefix("bytes */")?;
    parse_number(total).filter(|len| reply.status() == 416 && *len == 0)
}

/// Which part of a blob an answer holds.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    start: u64,
    is_part: bool,
    /// Bytes that the body must have.
    len: Option<u64>,
    total: Option<u64>,
}

impl Parts {
    /// Checks the head of an answer against what was asked.
    fn of(reply: &Reply, asked: Option<&Range<u64>>) -> Result<Self, Error> {
        let from = &reply.from;
        reply.check_content()?;
        let content_length = reply.content_length();
        let (content_range, asked) = match (reply.status().as_u16(), asked) {
            (200 | 203, _) => {
                return Ok(Self {
                    start: 0,
                    is_part: false,
                    len: content_length,
                    total: content_length,
                });
            }
            (206, Some(asked)) => (reply.header(CONTENT_RANGE).unwrap_or_default(), asked),
            (416, _) => {
                return Err(Error::invalid(format!(
                    "{from} has no bytes in the range asked for"
                )));
            }
            (status, _) => {
                return Err(Error::invalid(format!(
                    "{from} answered {status}, which is no content"
                )));
            }
        };
        let wrong = || Error::invalid(format!("{from} answered another range: {content_range:?}"));
        let given: ContentRange = content_range.parse().map_err(|_| wrong())?;
        let len = given.range.end - given.range.start;
        let is_asked = given.range.start == asked.start && given.range.end <= asked.end;
        let is_consistent = content_length.is_none_or(|content_length| content_length == len);
        if !is_asked || !is_consistent || given.total.is_none() {
            return Err(wrong());
        }
        Ok(Self {
            start: given.range.start,
            is_part: true,
            len: Some(len),
            total: given.total,
        })
    }
}

impl BlobBody {
    /// The next bytes, never empty; `None` when all that were announced have come.
    ///
    /// Fails with [`Error::Unavailable`] when they break off, or when none come within `stall_timeout`. Safe to cancel;
    /// a cancelled wait goes on counting.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.left == Some(0) {
            // Lets go of the connection; more than announced cannot be told apart from the next answer.
            return None;
        }
        let Ok(next) = timeout_at(self.stall.deadline(), self.body.next()).await else {
            let (from, after) = (&self.from, self.stall.patience);
            return Some(Err(Error::unavailable(format!(
                "{from} sent nothing for {after:?}"
            ))));
        };
        self.stall.progress();
        match next {
            Some(Ok(bytes)) => Some(self.accept(bytes)),
            Some(Err(error)) => Some(Err(Error::unavailable(format!(
                "{} broke off: {error}",
                self.from
            )))),
            None => match self.left {
                None => None,
                Some(left) => Some(Err(Error::unavailable(format!(
                    "{} ended {left} bytes too early",
                    self.from
                )))),
            },
        }
    }

    /// From here on it is read at the pace of one client, as after [`Upstream::pass_blob`], if that can be at once; whether it
    /// can. Where not, it is to be dropped, and [`Upstream::pass_blob`] waits for its turn.
    pub fn pass(&mut self) -> bool {
        !self.body.is_wide() && self.turn.as_mut().is_none_or(Turn::pass)
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes, Error> {
        let len = bytes.len() as u64;
        self.count.add(len);
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(len).ok_or_else(|| {
                Error::invalid(format!("{} sent more bytes than it announced", self.from))
            })?;
        }
        Ok(bytes)
    }
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody")
            .field("from", &self.from)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Measures how long the upstream has kept us waiting, over cancelled waits too, but not while nobody waits.
#[derive(Debug)]
struct Stall {
    patience: Duration,
    waiting_since: Option<Instant>,
}

impl Stall {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            waiting_since: None,
        }
    }

    fn deadline(&mut self) -> Instant {
        *self.waiting_since.get_or_insert_with(Instant::now) + self.patience
    }

    fn progress(&mut self) {
        self.waiting_since = None;
    }
}

/// Counts received bytes, in steps that spare the shared counter.
struct Count {
    upstream: Box<str>,
    metrics: Arc<Metrics>,
    bytes: u64,
}

impl Count {
    const STEP: u64 = 1 << 20;

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= Self::STEP {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.metrics
            .upstream
            .received(&self.upstream, std::mem::take(&mut self.bytes));
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.flush();
    }
}

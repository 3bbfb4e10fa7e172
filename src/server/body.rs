//! The body of an answer: bytes in memory, or whatever comes, such as a blob.
//!
//! It either delivers exactly what its head announced or fails, and then hyper breaks the connection (HTTP/2: the
//! stream). It never ends short as if all were well.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::Stream;
use http_body::{Body, Frame, SizeHint};

use super::admission::Slot;
use super::record::Record;
use super::stall;
use crate::proxy::BrokenBody;

/// What is sent after an answer's head.
pub(super) struct ResponseBody {
    source: Source,
    /// Bytes still to come; `None`: as many as the source has.
    left: Option<u64>,
    /// Writes the request's log line when it is dropped.
    record: Option<Record>,
    /// Of a request that holds one of its own.
    slot: Option<Slot>,
}

enum Source {
    /// All has been said.
    Done,
    Memory(Bytes),
    Stream(Pieces),
}

/// A body that comes about piece by piece.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, BrokenBody>> + Send>>;

impl ResponseBody {
    /// Nothing, for `HEAD`, `304` and the like.
    pub(super) fn empty() -> Self {
        Self {
            source: Source::Done,
            left: Some(0),
            record: None,
            slot: None,
        }
    }

    /// Bytes in memory.
    pub(super) fn memory(bytes: Bytes) -> Self {
        let left = Some(bytes.len() as u64);
        Self {
            source: match left {
                Some(0) => Source::Done,
                _ => Source::Memory(bytes),
            },
            left,
            record: None,
            slot: None,
        }
    }

    /// Whatever comes: `len` bytes where that is known, else until it ends.
    pub(super) fn stream(pieces: Pieces, len: Option<u64>) -> Self {
        Self {
            source: match len {
                Some(0) => Source::Done,
                _ => Source::Stream(pieces),
            },
            left: len,
            record: None,
            slot: None,
        }
    }

    /// Lets `record` count what is sent and end with this body.
    pub(super) fn recorded(mut self, mut record: Record) -> Self {
        if self.is_end_stream() {
            record.complete();
        }
        self.record = Some(record);
        self
    }

    /// Keeps `slot` until this body is over.
    pub(super) fn holding(mut self, slot: Option<Slot>) -> Self {
        self.slot = slot;
        self
    }

    /// Takes `len` bytes off what is left; fails when that is more than was announced.
    fn count(&mut self, len: u64) -> Result<(), BrokenBody> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(len)
                .ok_or_else(|| broken("too_long", "the body is longer than announced"))?;
        }
        if let Some(record) = &mut self.record {
            record.sent(len);
        }
        if self.left == Some(0) {
            self.finish();
        }
        Ok(())
    }

    /// Frees the source at once, not only when hyper drops the body.
    fn finish(&mut self) {
        self.source = Source::Done;
        if let Some(record) = &mut self.record {
            record.complete();
        }
    }

    fn break_off(&mut self, error: BrokenBody) -> BrokenBody {
        self.source = Source::Done;
        if let Some(record) = &mut self.record {
            record.broken(&error);
        }
        error
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        stall::body_is_asked();
        let piece = match &mut self.source {
            Source::Done => return Poll::Ready(None),
            Source::Memory(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Stream(pieces) => ready!(pieces.as_mut().poll_next(cx)),
        };
        let counted = match piece {
            Some(Ok(bytes)) => self.count(bytes.len() as u64).map(|()| Some(bytes)),
            Some(Err(error)) => Err(error),
            None if self.left.is_none() => {
                self.finish();
                Ok(None)
            }
            None => Err(broken("too_short", "the body is shorter than announced")),
        };
        Poll::Ready(match counted {
            Ok(Some(bytes)) => {
                stall::body_has_given();
                Some(Ok(Frame::data(bytes)))
            }
            Ok(None) => None,
            Err(error) => Some(Err(self.break_off(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

pub(super) fn broken(reason: &'static str, message: &str) -> BrokenBody {
    BrokenBody {
        reason,
        message: message.to_owned(),
    }
}

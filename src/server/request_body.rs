//! What a request brings besides its head: only operators' requests have any use for it.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::proxy::admin::{AdminError, Archive};

/// The body of a request, which nobody has to read.
pub(super) struct RequestBody(Incoming);

impl RequestBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(body)
    }

    /// Whether there is nothing in it, or nothing any more.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_end_stream()
    }

    /// Its bytes, where the head says how many.
    pub(super) fn len(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    /// All of it, of at most `most` bytes.
    pub(super) async fn whole(mut self, most: usize) -> Result<Bytes, AdminError> {
        let too_long = || {
            AdminError::Invalid(format!(
                "the body of the request is longer than {most} bytes; ask for less at once"
            ))
        };
        if self.len().is_some_and(|len| len > most as u64) {
            return Err(too_long());
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await {
            let piece = piece.map_err(|error| AdminError::Invalid(error.to_string()))?;
            if whole.len().saturating_add(piece.len()) > most {
                return Err(too_long());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Piece by piece, as fast as it is read.
    pub(super) fn into_archive(self) -> Archive {
        let len = self.len();
        let pieces = stream::unfold(Some(self), async |body| {
            let mut body = body?;
            match body.next().await? {
                Ok(piece) => Some((Ok(piece), Some(body))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Archive {
            len,
            pieces: Box::pin(pieces),
        }
    }

    /// What comes next. A body that goes on for ever without a byte is given up.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let frame = match tokio::time::timeout(SILENCE, self.0.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some(Err(silent())),
            };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) if data.is_empty() => {}
                Ok(Ok(data)) => return Some(Ok(data)),
                // Trailers.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(broken_off(&error))),
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestBody").field(&self.len()).finish()
    }
}

fn silent() -> io::Error {
    let message = format!(
        "the body of the request brought no byte for {}; send it again",
        humantime::format_duration(SILENCE)
    );
    io::Error::new(io::ErrorKind::TimedOut, message)
}

fn broken_off(error: &hyper::Error) -> io::Error {
    let message = format!("the body of the request broke off: {error}; send it again");
    io::Error::new(io::ErrorKind::ConnectionAborted, message)
}

/// Whoever sends may have to wait for its own source: a slow disk, a pipe, somebody who changes a tape.
const SILENCE: Duration = Duration::from_mins(10);

//! Bodies as they arrive, and what becomes of their connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::Origin;
use super::kept::{Http1, Seat};
use super::lane::Lane;
use super::pool::Pool;

/// A body nobody wants is read to its end if it is no longer than this, to keep its connection.
const DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What a body holds until it has ended.
pub(super) enum Occupied {
    /// The whole connection.
    Connection(Lease),
    /// One of the streams of a connection.
    Stream(
        #[expect(dead_code, reason = "counts by being held")] Seat,
        Lane,
    ),
}

/// An HTTP/1.1 connection that is busy with a body.
pub(super) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) origin: Origin,
    pub(super) line: Http1,
}

impl Lease {
    /// Returns the connection to the pool as soon as it is ready for another request.
    fn release(self) {
        let Self {
            pool,
            origin,
            mut line,
        } = self;
        if line.sender.is_ready() {
            pool.put_back(origin, line);
            return;
        }
        let tasks = pool.tasks.clone();
        let pool = Arc::downgrade(&pool);
        tasks.spawn_until_stop(async move {
            if line.sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                pool.put_back(origin, line);
            }
        });
    }
}

impl Occupied {
    fn release(self) {
        if let Self::Connection(lease) = self {
            lease.release();
        }
    }
}

/// A body as it arrives. Dropped before its end, it takes its HTTP/1.1 connection with it.
pub(in crate::upstream) struct Body {
    pub(super) incoming: Incoming,
    pub(super) occupied: Option<Occupied>,
}

impl Body {
    /// The next bytes, never empty; `None` at the end. Safe to cancel.
    pub(in crate::upstream) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            if self.release_at_end() {
                return None;
            }
            match self.incoming.frame().await {
                None => {
                    self.release();
                    return None;
                }
                Some(Err(error)) => {
                    self.occupied = None;
                    return Some(Err(causes(&error)));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.release_at_end();
                        return Some(Ok(data));
                    }
                }
            }
        }
    }

    /// Gives the body up; a short one is read to its end behind the caller's back, which keeps the connection.
    pub(in crate::upstream) fn discard(mut self) {
        let is_short = self
            .incoming
            .size_hint()
            .upper()
            .is_some_and(|len| len <= DRAIN_BYTES);
        let Some(Occupied::Connection(lease)) = self.occupied.as_ref().filter(|_| is_short) else {
            return;
        };
        let tasks = lease.pool.tasks.clone();
        tasks.spawn_until_stop(async move {
            let to_end = async { while let Some(Ok(_)) = self.next().await {} };
            // A body that does not end in time is dropped with its connection.
            let _ = timeout(DRAIN_TIME, to_end).await;
        });
    }

    /// Whether it holds one of the wide windows, of which there are few.
    pub(in crate::upstream) fn is_wide(&self) -> bool {
        matches!(&self.occupied, Some(Occupied::Stream(_, Lane::Wide(_))))
    }

    /// Frees the connection if the body has ended; whether it has.
    pub(super) fn release_at_end(&mut self) -> bool {
        let ended = self.incoming.is_end_stream();
        if ended {
            self.release();
        }
        ended
    }

    fn release(&mut self) {
        if let Some(occupied) = self.occupied.take() {
            occupied.release();
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

/// An error with what caused it, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

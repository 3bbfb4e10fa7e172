//! The seam between authentication and connections: one request, one small answer.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::Instant;

use super::Error;

/// Most bytes of a token's or an error's body that are read.
pub(super) const SMALL_BODY: usize = 64 * 1024;

/// A boxed future, so that [`Exchange`] can be used as `dyn`.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends one request whose answer is small: token exchanges, and `/v2/` when a challenge is missing.
///
/// Redirects are never followed. A body over [`SMALL_BODY`] is [`Error::Invalid`]. The address rules apply: a host
/// that is not the upstream's own may not be at a private address unless the upstream is.
pub(super) trait Exchange: Send + Sync {
    /// Sends `request`, whose URI is absolute, as it is: no header is added but those that HTTP needs, `User-Agent`
    /// and `Accept-Encoding: identity`. Every status is an answer; only a missing answer is an error.
    fn send(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Response<Bytes>, Error>>;
}

/// An answer of the upstream that wants other credentials, or better ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefusedAnswer<'a> {
    /// `401`, or a `403` or `400` that may mean an expired token.
    pub(super) status: StatusCode,
    /// All its headers; `WWW-Authenticate` may occur more than once.
    pub(super) headers: &'a HeaderMap,
    /// The first [`SMALL_BODY`] bytes of its body.
    pub(super) body: &'a [u8],
}

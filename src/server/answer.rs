//! An answer before it is on the wire: status, headers, and what its body would be under `GET`.
//!
//! `HEAD` is made from it here and nowhere else, so the two cannot disagree.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, WARNING,
};
use http::{Method, Response, StatusCode};

use super::blob::BlobSender;
use super::body::{Pieces, ResponseBody};
use super::conditional::entity_tag;
use super::record::Record;
use crate::oci::Digest;
use crate::proxy::{CacheOutcome, Selected};

/// What a handler gives back.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    payload: Payload,
}

/// The body of a `GET`'s answer.
pub(super) enum Payload {
    /// There is none, and no length of one: `304`.
    None,
    /// So many bytes, which a `HEAD` does not want; `None`: not known how many.
    Unsent(Option<u64>),
    /// In memory.
    Memory(Bytes),
    /// From a blob.
    Blob(BlobSender, Option<u64>),
    /// Piece by piece, as it comes about; `None`: not known how many bytes.
    Stream(Pieces, Option<u64>),
}

impl Payload {
    fn len(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Memory(bytes) => Some(bytes.len() as u64),
            Self::Unsent(len) | Self::Blob(_, len) | Self::Stream(_, len) => *len,
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({:?})", self.len())
    }
}

impl Answer {
    pub(super) fn new(status: StatusCode, payload: Payload) -> Self {
        Self {
            status,
            headers: HeaderMap::with_capacity(HEADERS),
            payload,
        }
    }

    /// JSON in memory.
    pub(super) fn json(status: StatusCode, body: Bytes) -> Self {
        Self::new(status, Payload::Memory(body)).with_static(CONTENT_TYPE, "application/json")
    }

    /// Adds a header whose value is fixed.
    pub(super) fn with_static(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// Adds a header. A value that no header can hold is left out: the answer is right without it.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Adds a header whose value has been made.
    pub(super) fn with_value(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds a header if there is a value for it.
    pub(super) fn with_some(self, name: HeaderName, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Says what the cache did, and whether what it gives is stale.
    pub(super) fn with_outcome(self, outcome: CacheOutcome, warning: Option<&str>) -> Self {
        let warning = warning.map(|text| format!("299 - \"{}\"", quotable(text)));
        self.with_static(CACHE_STATUS, outcome.cache_status())
            .with_some(WARNING, warning.as_deref())
    }

    /// Says which content this is: its digest, also as entity tag.
    pub(super) fn with_digest(self, digest: &Digest) -> Self {
        self.with(DOCKER_CONTENT_DIGEST, digest.as_str())
            .with(ETAG, &entity_tag(digest))
    }

    /// Says that `ns` decided whose content this is (distribution-spec, "Registry Proxying").
    pub(super) fn with_namespace(self, selected: &Selected) -> Self {
        self.with_some(OCI_NAMESPACE, selected.ns.as_deref())
    }

    /// Says how long others may keep it. What a digest names never changes; of anything else, the next state is asked
    /// for. Where not everyone may use Layby, shared caches between must not serve them either.
    pub(super) fn with_lifetime(self, immutable: bool, restricted: bool) -> Self {
        let value = match (immutable, restricted) {
            (false, _) => "no-cache",
            (true, false) => "public, max-age=31536000, immutable",
            (true, true) => "private, max-age=31536000, immutable",
        };
        self.with_static(CACHE_CONTROL, value)
    }

    /// The same headers as a `304`, which has no content and says nothing of its size.
    pub(super) fn not_modified(mut self) -> Self {
        self.status = StatusCode::NOT_MODIFIED;
        self.headers.remove(CONTENT_TYPE);
        self.payload = Payload::None;
        self
    }

    /// The answer as it goes out to `method`. `record` ends with its body.
    pub(super) fn into_response(
        self,
        method: &Method,
        mut record: Record,
    ) -> Response<ResponseBody> {
        record.set_status(self.status.as_u16());
        if let Payload::Blob(sender, _) = &self.payload
            && let Some(source) = sender.source()
        {
            record.set_source(source);
        }
        self.into_unrecorded_response(method)
            .map(|body| body.recorded(record))
    }

    /// The same without a log line.
    pub(super) fn into_unrecorded_response(self, method: &Method) -> Response<ResponseBody> {
        let len = self.payload.len();
        let body = match self.payload {
            _ if method == Method::HEAD => ResponseBody::empty(),
            Payload::None | Payload::Unsent(_) => ResponseBody::empty(),
            Payload::Memory(bytes) => ResponseBody::memory(bytes),
            Payload::Blob(sender, len) => ResponseBody::stream(sender.into_pieces(), len),
            Payload::Stream(pieces, len) => ResponseBody::stream(pieces, len),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        // hyper would leave it out, or write 0, where the body is empty because the method is HEAD.
        if let Some(len) = len {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        response
    }
}

/// `text` as it may stand between quotes of a header: visible ASCII, quotes and backslashes replaced, not too long
/// (distribution-spec, "Warnings").
fn quotable(text: &str) -> String {
    text.chars()
        .take(WARNING_CHARS)
        .map(|c| match c {
            '"' | '\\' => '\'',
            ' '..='~' => c,
            _ => '?',
        })
        .collect()
}

/// What the cache did (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Digest of the content (distribution-spec).
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// On every answer of a registry.
pub(super) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// Headers of most answers, with those that hyper adds.
const HEADERS: usize = 12;
/// Characters of a warning that are kept; all warnings of an answer together may have 4096 bytes.
const WARNING_CHARS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_can_neither_break_its_quotes_nor_its_line() {
        let text = quotable("say \"x\\y\"\r\nset-cookie: é");
        assert_eq!(text, "say 'x'y'??set-cookie: ?");
        assert_eq!(quotable(&"x".repeat(9000)).len(), WARNING_CHARS);
    }
}

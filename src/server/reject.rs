//! The only place that picks a status code and an OCI error code (distribution-spec, "Error Codes").

use std::time::Duration;

use http::StatusCode;
use http::header::{ALLOW, CONTENT_RANGE, HeaderName, HeaderValue, RETRY_AFTER};

use super::admission::Full;
use super::answer::Answer;
use super::request_id::RequestId;
use crate::oci::{ContentRange, ErrorBody, ErrorCode, Route, RouteError};
use crate::proxy::{Error, SelectError, What};
use crate::upstream;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Rejection {
    status: StatusCode,
    code: ErrorCode,
    /// Short name for the log.
    reason: &'static str,
    /// For the client: what happened and what to do.
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Rejection {
    fn new(
        status: StatusCode,
        code: ErrorCode,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            reason,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The client is in none of the networks of `clients`.
    pub(super) fn not_a_client(address: std::net::IpAddr) -> Self {
        let message = format!(
            "{} may not use this cache: its operator can add the address or its network to `clients`",
            address.to_canonical()
        );
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, "clients", message)
    }

    /// The request has passed through this instance before.
    pub(super) fn went_round() -> Self {
        upstream::Error::Loop.into()
    }

    /// None of the ranges that were asked for lies within the content.
    pub(super) fn unsatisfiable(len: u64) -> Self {
        let message = format!("the range starts behind the end: the content has {len} bytes");
        let value = HeaderValue::try_from(ContentRange::unsatisfied(len));
        let rejection = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::RangeInvalid,
            "range",
            message,
        );
        match value {
            Ok(value) => rejection.with(CONTENT_RANGE, value),
            Err(_) => rejection,
        }
    }

    /// More ranges than are served at once. Clients take the `400` as a hint to ask for fewer.
    pub(super) fn too_many_ranges() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::RangeInvalid,
            "too_many_ranges",
            "too many ranges in one request: ask for fewer",
        )
    }

    /// The catalog is turned off.
    pub(super) fn no_catalog() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorCode::Unsupported,
            "catalog_off",
            "the catalog is turned off: its operator can set `catalog = true`",
        )
    }

    /// There is no room for more connections, or requests on them. A `503` sends clients to the next mirror.
    pub(super) fn full(full: Full) -> Self {
        let (reason, message) = match full {
            Full::Total => (
                "max_connections",
                "this cache serves as many clients as it may: ask again, or have its operator raise \
                 `limits.max_connections`",
            ),
            Full::Client => (
                "max_connections_per_client",
                "your address has too much under way at once: ask again, or have the operator raise \
                 `limits.max_connections_per_client`",
            ),
        };
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            reason,
            message,
        )
        .with(RETRY_AFTER, seconds(FULL_WAIT))
    }

    /// A fault of our own: a panic.
    pub(super) fn fault() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unknown,
            "panic",
            "this request met a bug of Layby: report it with what the log says of it",
        )
    }

    /// No answer in time, in spite of the deadlines within.
    pub(super) fn too_slow() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            "header_timeout",
            "no answer within header_timeout: ask again",
        )
    }

    /// A body of unknown length to a client of HTTP/1.0, which could not tell its end from a broken one.
    pub(super) fn needs_http11() -> Self {
        Self::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            ErrorCode::Unsupported,
            "http_version",
            "this content's length is not known yet: ask by HTTP/1.1",
        )
    }

    /// Short name for the log.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// What the client is told, without the request id.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The answer: OCI JSON with code, message and request id.
    pub(super) fn into_answer(self, id: &RequestId) -> Answer {
        // In the message too, since that is all that most clients show.
        let message = format!("{} (request id {id})", self.message);
        let body = ErrorBody::new(self.code, message, id.as_str()).to_json();
        let mut answer = Answer::json(self.status, body.into());
        for (name, value) in self.headers {
            answer = answer.with_value(name, value);
        }
        answer
    }
}

impl From<RouteError> for Rejection {
    fn from(error: RouteError) -> Self {
        use RouteError as E;
        let message = error.to_string();
        let (status, code, reason) = match error {
            E::Method => {
                return Self::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    ErrorCode::Unsupported,
                    "method",
                    message,
                )
                .with(ALLOW, HeaderValue::from_static(Route::ALLOW));
            }
            E::NotFound => (StatusCode::NOT_FOUND, ErrorCode::Unsupported, "no_route"),
            E::Path => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, "path"),
            E::Name { .. } => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, "name"),
            E::Reference { .. } => (StatusCode::BAD_REQUEST, ErrorCode::TagInvalid, "reference"),
            E::Digest { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, "digest"),
            E::PageSize { .. } => (
                StatusCode::BAD_REQUEST,
                ErrorCode::PaginationNumberInvalid,
                "page_size",
            ),
            E::TwoNamespaces => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, "two_ns"),
        };
        Self::new(status, code, reason, message)
    }
}

impl From<SelectError> for Rejection {
    fn from(error: SelectError) -> Self {
        let message = error.to_string();
        match error {
            SelectError::Unknown { .. } => Self::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NameUnknown,
                "no_upstream",
                message,
            ),
            SelectError::Name { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorCode::NameInvalid,
                "name",
                message,
            ),
            SelectError::Forbidden { .. } => Self::new(
                StatusCode::FORBIDDEN,
                ErrorCode::Denied,
                "not_allowed",
                message,
            ),
        }
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        let reason = error.reason();
        let message = error.to_string();
        let unavailable = |message: String| {
            Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unavailable,
                reason,
                message,
            )
        };
        match error {
            Error::NotFound { what, .. } | Error::NotCached { what } => {
                Self::new(StatusCode::NOT_FOUND, unknown(what), reason, message)
            }
            Error::Upstream(error) => error.into(),
            Error::Store(_) | Error::SlowDisk => unavailable(message),
            // Its connections are closing too, so that the next try meets another instance.
            Error::Stopping => {
                unavailable(message).with(RETRY_AFTER, HeaderValue::from_static("1"))
            }
        }
    }
}

/// Which of the protocol's unknowns an absence is.
fn unknown(what: What) -> ErrorCode {
    match what {
        What::Manifest | What::Referrers => ErrorCode::ManifestUnknown,
        What::Blob => ErrorCode::BlobUnknown,
        What::Tags => ErrorCode::NameUnknown,
    }
}

impl From<upstream::Error> for Rejection {
    fn from(error: upstream::Error) -> Self {
        use upstream::Error as E;
        let reason = error.reason();
        let message = error.to_string();
        let (status, code) = match &error {
            E::NotFound { .. } => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
            // A 401 would make clients look for a login here. Where it was ours, the message says so.
            E::Denied { .. } | E::Refused { .. } => (StatusCode::FORBIDDEN, ErrorCode::Denied),
            E::RateLimited { retry_after, .. } => {
                let wait = retry_after.unwrap_or(RATE_LIMIT_WAIT);
                return Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    ErrorCode::TooManyRequests,
                    reason,
                    message,
                )
                .with(RETRY_AFTER, seconds(wait));
            }
            E::Unavailable { .. } | E::Offline => {
                (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable)
            }
            E::Invalid { .. } | E::Corrupt { .. } => {
                (StatusCode::BAD_GATEWAY, ErrorCode::Unavailable)
            }
            E::Loop => (StatusCode::LOOP_DETECTED, ErrorCode::Unavailable),
        };
        Self::new(status, code, reason, message)
    }
}

/// Whole seconds, rounded up, at least one.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

/// Told to clients that there is no room for.
const FULL_WAIT: Duration = Duration::from_secs(5);
/// Told to clients where the upstream does not say how long to wait.
const RATE_LIMIT_WAIT: Duration = Duration::from_secs(60);

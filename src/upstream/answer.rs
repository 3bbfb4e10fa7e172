//! What an upstream's status means, and reading the bodies that fit in memory.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::Error;
use super::exchange::{RefusedAnswer, SMALL_BODY};
use super::failure::{Failure, Kind};
use super::health::Turn;
use super::net::{Body, Origin, without_secrets};
use super::said::{said, said_without, secrets_of};
use crate::oci::{ErrorBody, ErrorCode, MediaType};

/// An answer, and where it came from in the end.
#[derive(Debug)]
pub(super) struct Reply {
    /// The URL that answered, for messages: without query.
    pub(super) from: String,
    /// Who answered.
    pub(super) origin: Origin,
    /// Whether a redirect led away from the upstream's own origin.
    pub(super) strayed: bool,
    /// What was shown to whoever answered, if a redirect led there, and must not be repeated.
    secrets: Vec<String>,
    /// The answer itself.
    pub(super) response: Response<Body>,
    /// Its place among the requests that may be under way.
    pub(super) turn: Option<Turn>,
}

/// An answer that is not content, read.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) from: String,
    pub(super) origin: Origin,
    pub(super) strayed: bool,
    secrets: Vec<String>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Its first [`SMALL_BODY`] bytes.
    pub(super) body: Bytes,
}

impl Reply {
    /// An answer of `url`, which is at `origin`, to a request with the `Authorization` that was `sent`.
    pub(super) fn new(
        url: &Url,
        origin: Origin,
        strayed: bool,
        sent: Option<&HeaderValue>,
        response: Response<Body>,
    ) -> Self {
        let secrets = if strayed {
            secrets_of(url, sent)
        } else {
            Vec::new()
        };
        Self {
            secrets,
            from: without_secrets(url),
            origin,
            strayed,
            response,
            turn: None,
        }
    }

    /// The answer to a request that counts as under way until the answer is dropped.
    pub(super) fn counted(self, turn: Turn) -> Self {
        Self {
            turn: Some(turn),
            ..self
        }
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header as text; `None` where it is missing or not ASCII.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        text(self.response.headers(), name)
    }

    /// `Content-Type` without parameters.
    pub(super) fn media_type(&self) -> Option<MediaType> {
        MediaType::parse(self.header(CONTENT_TYPE)?)
    }

    /// `Content-Length`.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH).and_then(parse_number)
    }

    /// Refuses what cannot be content: web pages, and bodies that are encoded although `identity` was asked for.
    pub(super) fn check_content(&self) -> Result<(), Error> {
        let from = &self.from;
        if self
            .media_type()
            .is_some_and(|media_type| media_type.is_html())
        {
            return Err(Error::invalid(format!(
                "{from} answered with a web page instead of a registry's content; check the upstream's url"
            )));
        }
        if !is_plain(self.response.headers()) {
            return Err(Error::invalid(format!(
                "{from} sent an encoded body although it was asked for the plain one"
            )));
        }
        Ok(())
    }

    /// The whole body, of at most `limit` bytes, before `deadline`.
    pub(super) async fn read(self, limit: usize, deadline: Instant) -> Result<Bytes, Failure> {
        let from = self.from;
        read_whole(&from, self.response.into_body(), limit, deadline).await
    }

    /// Reads what an answer that is not content says. Nothing is ever decoded: an encoded body says nothing.
    pub(super) async fn refuse(self, deadline: Instant) -> Refusal {
        let (head, body) = self.response.into_parts();
        let body = if is_plain(&head.headers) {
            read_start(body, deadline).await
        } else {
            body.discard();
            Bytes::new()
        };
        Refusal {
            from: self.from,
            origin: self.origin,
            strayed: self.strayed,
            secrets: self.secrets,
            status: head.status,
            headers: head.headers,
            body,
        }
    }
}

impl Refusal {
    /// The part of it that authentication wants to see.
    pub(super) fn as_refused(&self) -> RefusedAnswer<'_> {
        RefusedAnswer {
            status: self.status,
            headers: &self.headers,
            body: &self.body,
        }
    }

    /// What it says, to us whose login was `sent`.
    fn said(&self, sent: Option<&HeaderValue>) -> ErrorBody {
        if self.strayed {
            said_without(&self.body, &self.secrets)
        } else {
            said(&self.body, sent)
        }
    }

    /// The error that this answer to a request with the `Authorization` that was `sent` is, of someone who knows nothing
    /// of our login.
    pub(super) fn to_error(&self, sent: Option<&HeaderValue>, now: SystemTime) -> Error {
        let said = self.said(sent);
        let (from, status) = (&self.from, self.status.as_u16());
        let message = if said.errors.is_empty() {
            format!("{from} answered {status}")
        } else {
            format!("{from} answered {status}: {said}")
        };
        match status {
            _ if said.has(ErrorCode::TooManyRequests) => self.rate_limited(message, now),
            429 => self.rate_limited(message, now),
            404 | 410 => Error::NotFound { message },
            401 | 402 | 403 | 407 | 451 => Error::Denied {
                message,
                ours: false,
            },
            508 => Error::Loop,
            408 | 425 | 500..=599 => Error::unavailable(message),
            _ => Error::invalid(message),
        }
    }

    fn rate_limited(&self, message: String, now: SystemTime) -> Error {
        Error::RateLimited {
            retry_after: retry_after(&self.headers, now),
            message,
        }
    }

    /// How the try failed that was answered with this and is `error` to the caller.
    pub(super) fn to_failure(&self, error: Error, now: SystemTime) -> Failure {
        let is_failing = matches!(self.status.as_u16(), 502..=504);
        let kind = match &error {
            Error::Unavailable { .. } if is_failing => {
                Kind::Failing(retry_after(&self.headers, now))
            }
            _ => Kind::Final,
        };
        Failure::new(kind, error)
    }

    /// Whether it says that there is too much of something, and not of what.
    pub(super) fn is_mute_limit(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS && self.body.is_empty()
    }

    /// What it says if that is, as Docker Hub has it, that the pulls of a time are used up (PROTOCOL 4.1).
    pub(super) fn pull_limit(&self, sent: Option<&HeaderValue>) -> Option<String> {
        let said = self.said(sent);
        let is_limit = self.status == StatusCode::TOO_MANY_REQUESTS
            && said.has(ErrorCode::TooManyRequests)
            && said
                .message()?
                .to_ascii_lowercase()
                .contains("pull rate limit");
        is_limit.then(|| said.to_string())
    }
}

/// The wait that `Retry-After` asks for, in seconds or as a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER)?.trim();
    if let Some(seconds) = parse_number(text) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The whole of `body`, of at most `limit` bytes.
pub(super) async fn read_whole(
    from: &str,
    mut body: Body,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, Failure> {
    let mut whole = BytesMut::new();
    loop {
        let next = timeout_at(deadline, body.next()).await.map_err(|_| {
            let message = format!("{from} did not send its whole answer in time");
            Failure::unavailable(Kind::Silent, message)
        })?;
        match next {
            None => return Ok(whole.freeze()),
            Some(Err(error)) => {
                let message = format!("{from} broke off its answer: {error}");
                return Err(Failure::unavailable(Kind::Broken, message));
            }
            Some(Ok(bytes)) if whole.len() + bytes.len() > limit => {
                let error = Error::invalid(format!("{from} sent more than {limit} bytes"));
                return Err(error.into());
            }
            Some(Ok(bytes)) => whole.extend_from_slice(&bytes),
        }
    }
}

/// Whether a body is as it is, and not encoded in a way that nobody asked for.
fn is_plain(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING);
    let is_plain = |value: &HeaderValue| {
        value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity")
    };
    encodings.iter().all(is_plain)
}

/// The first [`SMALL_BODY`] bytes of an error's body, or as much as comes in time: the status says enough.
async fn read_start(mut body: Body, deadline: Instant) -> Bytes {
    let deadline = deadline.min(Instant::now() + PATIENCE);
    let mut start = BytesMut::new();
    while start.len() < SMALL_BODY
        && let Ok(Some(Ok(bytes))) = timeout_at(deadline, body.next()).await
    {
        start.extend_from_slice(&bytes);
    }
    start.truncate(SMALL_BODY);
    start.freeze()
}

/// How long an error's body is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Digits alone; what does not fit is `None`.
pub(super) fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &'static str, retry_after: Option<&str>) -> Error {
        error_after(None, status, body, retry_after)
    }

    fn error_after(
        sent: Option<&HeaderValue>,
        status: u16,
        body: &'static str,
        retry_after: Option<&str>,
    ) -> Error {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let refusal = Refusal {
            from: "https://r.example/v2/a/manifests/b".to_owned(),
            origin: Origin::of(&"https://r.example".parse().unwrap()).unwrap(),
            strayed: false,
            secrets: Vec::new(),
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        };
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        refusal.to_error(sent, now)
    }

    #[test]
    fn each_status_is_the_error_that_the_caller_can_act_on() {
        for (status, reason) in [
            (404, "not_found"),
            (410, "not_found"),
            (401, "denied"),
            (403, "denied"),
            (429, "rate_limited"),
            (500, "unavailable"),
            (503, "unavailable"),
            (408, "unavailable"),
            (508, "loop"),
            (400, "invalid"),
            (405, "invalid"),
        ] {
            assert_eq!(error(status, "", None).reason(), reason, "{status}");
        }
    }

    #[test]
    fn the_upstreams_words_are_passed_on() {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#;
        let message = error(404, body, None).to_string();
        assert!(
            message.contains("404") && message.contains("MANIFEST_UNKNOWN"),
            "{message}"
        );
        assert!(message.contains("no such tag"), "{message}");
    }

    #[test]
    fn our_login_is_not_passed_on_whatever_the_status() {
        let sent = HeaderValue::from_static("Bearer s3cr3t");
        for status in [400, 401, 403, 404, 429, 500, 508] {
            let body = r#"{"errors":[{"code":"X","message":"no Bearer s3cr3t"}]}"#;
            let message = error_after(Some(&sent), status, body, None).to_string();
            assert!(!message.contains("s3cr3t"), "{message}");
        }
    }

    #[test]
    fn a_rate_limit_is_one_whatever_status_it_comes_with() {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        assert_eq!(error(403, body, None).reason(), "rate_limited");
    }

    #[test]
    fn a_rate_limit_says_how_long_to_wait_in_seconds_or_by_date() {
        let wait = |text| match error(429, "Too Many Requests", text) {
            Error::RateLimited { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(Some("120")), Some(Duration::from_secs(120)));
        assert_eq!(
            wait(Some("Sun, 06 Nov 1994 08:50:37 GMT")),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            wait(Some("Sun, 06 Nov 1994 08:00:00 GMT")),
            Some(Duration::ZERO)
        );
        assert_eq!(wait(Some("soon")), None);
        assert_eq!(wait(None), None);
    }
}

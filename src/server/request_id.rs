//! The name of a request, by which a client's error and our log line find each other.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// A request's name: the client's own `X-Request-Id` where that is harmless, else a random one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Box<str>);

/// The header it comes and goes in.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl RequestId {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get(X_REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|text| is_harmless(text));
        Self(given.map_or_else(|| format!("{:016x}", fastrand::u64(..)).into(), Into::into))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Short, and nothing that could forge a log line.
fn is_harmless(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> RequestId {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, value.parse().unwrap());
        RequestId::of(&headers)
    }

    #[test]
    fn a_harmless_id_of_the_client_is_kept() {
        assert_eq!(of("4bf92f35-77b3.x_1").as_str(), "4bf92f35-77b3.x_1");
    }

    #[test]
    fn anything_else_is_replaced_by_a_random_one() {
        for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_eq!(of(bad).as_str().len(), 16, "{bad}");
        }
        let none = HeaderMap::new();
        assert_ne!(RequestId::of(&none).as_str(), RequestId::of(&none).as_str());
    }
}

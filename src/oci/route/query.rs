//! The query of a request: the parameters that Layby reads, and the rest as it was written.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{RouteError, excerpt};

/// The page of a tag list that is asked for.
///
/// Upstreams page by parameters of their own (`next_page`, `next_page_token`), so the whole query is kept as it was
/// written and only read where Layby itself must page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagsQuery {
    /// Most tags wanted.
    pub n: Option<u32>,
    /// Last tag of the page before, decoded.
    pub last: Option<String>,
    query: String,
}

impl TagsQuery {
    /// The page of at most `n` tags behind `last`.
    pub fn new(n: Option<u32>, last: Option<&str>) -> Self {
        let mut query = String::new();
        if let Some(last) = last {
            query = format!("last={}", encode(last));
        }
        if let Some(n) = n {
            let joint = if query.is_empty() { "" } else { "&" };
            query = format!("{query}{joint}n={n}");
        }
        Self {
            n,
            last: last.map(str::to_owned),
            query,
        }
    }

    /// The query to ask an upstream with, and the key to remember its answer by: every parameter but `ns`, sorted.
    pub fn as_query(&self) -> &str {
        &self.query
    }
}

/// What is written as it is: letters, digits and four marks (RFC 3986, section 2.3).
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Percent-encodes a value for a query.
pub(in crate::oci) fn encode(value: &str) -> impl std::fmt::Display {
    utf8_percent_encode(value, NOT_UNRESERVED)
}

/// Drops `ns` from the parameters of a query; the others stay as written, in their order.
pub(in crate::oci) fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && key(pair) != "ns")
}

/// A query that has been received, without its question mark.
///
/// A `+` stands for itself: media types hold it, and nothing that is asked for here holds a space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// Values of a parameter, decoded, the empty ones too.
    fn values(self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.0
            .split('&')
            .filter(move |pair| key(pair) == name)
            .map(|pair| {
                let value = pair.split_once('=').map_or("", |(_, value)| value);
                percent_decode_str(value).decode_utf8_lossy()
            })
    }

    fn value(self, name: &str) -> Option<Cow<'a, str>> {
        self.values(name).find(|value| !value.is_empty())
    }

    pub(super) fn ns(self) -> Result<Option<String>, RouteError> {
        let mut values = self.values("ns");
        let first = values.next();
        if values.next().is_some() {
            return Err(RouteError::TwoNamespaces);
        }
        Ok(first
            .filter(|value| !value.is_empty())
            .map(|value| value.to_ascii_lowercase()))
    }

    pub(super) fn n(self) -> Result<Option<u32>, RouteError> {
        let Some(text) = self.value("n") else {
            return Ok(None);
        };
        // A sign is allowed by `parse`, not by the protocol.
        let number = text
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse());
        match number {
            Some(Ok(n)) => Ok(Some(n)),
            _ => Err(RouteError::PageSize {
                text: excerpt(&text),
            }),
        }
    }

    pub(super) fn last(self) -> Option<String> {
        self.value("last").map(Cow::into_owned)
    }

    pub(super) fn artifact_types(self) -> Vec<String> {
        self.values("artifactType")
            .filter(|value| !value.is_empty())
            .map(Cow::into_owned)
            .collect()
    }

    pub(super) fn canonical(self) -> String {
        let mut pairs: Vec<&str> = parameters(self.0).collect();
        pairs.sort_unstable();
        pairs.join("&")
    }

    pub(super) fn tags(self) -> Result<TagsQuery, RouteError> {
        Ok(TagsQuery {
            n: self.n()?,
            last: self.last(),
            query: self.canonical(),
        })
    }
}

fn key(pair: &str) -> Cow<'_, str> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_decode_str(name).decode_utf8_lossy()
}

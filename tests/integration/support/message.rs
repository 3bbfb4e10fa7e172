//! Requests and answers as they are written.

use std::fmt::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use layby::oci::Digest;

use super::client::Wire;
use crate::fake::Content;

/// A request, written out.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: String,
    host: Option<String>,
    body: String,
}

impl Request {
    /// `GET target`.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// `HEAD target`.
    pub(crate) fn head(target: impl Into<String>) -> Self {
        Self::new("HEAD", target)
    }

    /// Any method.
    pub(crate) fn new(method: &str, target: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: String::new(),
            host: None,
            body: String::new(),
        }
    }

    /// One more header, as written.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.headers, "{name}: {value}\r\n");
        self
    }

    /// With this body.
    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.into();
        self.header("Content-Length", &body.len().to_string())
    }

    /// `Range: bytes=…`.
    pub(crate) fn range(self, range: &str) -> Self {
        self.header("Range", &format!("bytes={range}"))
    }

    /// This `Host` instead of the address.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sends it on a new connection and reads the whole answer.
    pub(crate) async fn send_to(&self, address: SocketAddr) -> Reply {
        let mut wire = Wire::connect(address).await;
        wire.ask(self).await
    }

    /// Whether its answer has no body.
    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// What goes onto the wire.
    pub(super) fn text(&self, address: SocketAddr) -> String {
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let Self {
            method,
            target,
            headers,
            body,
            ..
        } = self;
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{body}")
    }
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    /// All of it as it came, up to the empty line.
    pub(crate) raw: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; fails where it is none of HTTP/1.1.
    pub(super) fn parse(raw: String) -> Self {
        let mut lines = raw.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {first}"));
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            status,
            raw,
            headers,
        }
    }

    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter();
        named
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a header that comes at most once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} more than once: {}", self.raw);
        all.first().copied()
    }

    /// `Content-Length`.
    pub(crate) fn length(&self) -> Option<u64> {
        self.get("content-length")
            .map(|text| text.parse().expect("a number"))
    }

    /// Status and headers without what differs from one answer to the next.
    pub(crate) fn comparable(&self) -> (u16, Vec<(String, String)>) {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !matches!(
                name.as_str(),
                "date" | "x-request-id" | "cache-status" | "age"
            )
        });
        headers.sort();
        (self.status, headers)
    }
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As announced: all bytes came.
    Complete,
    /// The connection ended before.
    Broken,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its head.
    pub(crate) head: Head,
    /// All bytes of the body that came.
    pub(crate) body: Bytes,
    /// How it ended.
    pub(crate) end: End,
}

impl Reply {
    /// Status code.
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The first error's code.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        json["errors"][0]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {json}"))
            .to_owned()
    }

    /// The parts of a multipart answer, each with its `Content-Range`.
    pub(crate) fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let kind = self.header("content-type").expect("a type");
        let boundary = kind
            .split("boundary=")
            .nth(1)
            .expect("a boundary")
            .trim_matches('"');
        assert!(kind.starts_with("multipart/byteranges"), "{kind}");
        let mut rest: &[u8] = &self.body;
        let mut found = Vec::new();
        loop {
            let start = format!("--{boundary}");
            let at = rest
                .windows(start.len())
                .position(|w| w == start.as_bytes())
                .expect("a part");
            rest = &rest[at + start.len()..];
            if rest.starts_with(b"--") {
                return found;
            }
            let end = rest
                .windows(4)
                .position(|w| w == b"\r\n\r\n")
                .expect("a part's head");
            let head = String::from_utf8(rest[..end].to_vec()).expect("ASCII");
            let line = head
                .lines()
                .find(|line| {
                    line.to_ascii_lowercase()
                        .starts_with("content-range: bytes ")
                })
                .expect("a Content-Range");
            let range = line["content-range: ".len()..].to_owned();
            let (span, _) = range["bytes ".len()..].split_once('/').expect("a length");
            let (from, to) = span.split_once('-').expect("a first and a last byte");
            let number = |text: &str| text.parse::<usize>().expect("a number");
            let len = number(to) + 1 - number(from);
            found.push((range.clone(), rest[end + 4..end + 4 + len].to_vec()));
            rest = &rest[end + 4 + len..];
        }
    }

    /// Fails unless this is a complete answer with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{}\n{}", self.head.raw, self.text());
        assert_eq!(self.end, End::Complete, "{}", self.head.raw);
        self
    }
}

/// A body that was hashed and not kept.
#[derive(Debug)]
pub(crate) struct Download {
    /// Its head.
    pub(crate) head: Head,
    /// Number of bytes.
    pub(crate) len: u64,
    /// What they hash to.
    pub(crate) digest: Digest,
    /// The first of them, for messages.
    pub(super) start: Bytes,
    /// How it ended.
    pub(crate) end: End,
}

impl Download {
    /// Fails unless this is all of a blob, and right.
    #[track_caller]
    pub(crate) fn expect(&self, content: &Content) {
        let whole = self.is_whole(content.digest());
        assert!(whole, "not {}: {self}", content.digest());
    }

    /// Whether this is all of a blob, and right.
    pub(crate) fn is_whole(&self, digest: &Digest) -> bool {
        self.head.status == 200 && self.end == End::Complete && self.digest == *digest
    }

    /// Whether a client takes this for all of a blob although it is not: what must never be.
    pub(crate) fn is_a_lie(&self, digest: &Digest) -> bool {
        self.head.status == 200 && self.end == End::Complete && self.digest != *digest
    }
}

impl std::fmt::Display for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { head, len, end, .. } = self;
        write!(f, "{}\n{len} bytes, {end:?}", head.raw)?;
        match head.status {
            200 | 206 => Ok(()),
            _ => write!(f, "\n{}", String::from_utf8_lossy(&self.start)),
        }
    }
}

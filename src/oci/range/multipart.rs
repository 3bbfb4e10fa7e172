//! The body that carries several ranges at once: `multipart/byteranges` (RFC 9110, section 14.6).

use std::ops::Range;

use super::ContentRange;

/// How a body of several ranges is laid out: for each part its head and then the bytes of its range, at the end the tail.
///
/// There is one part per range, in the order given, never coalesced: containers/image counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// Separates the parts.
    pub boundary: String,
    /// The parts in order.
    pub parts: Vec<Part>,
    /// What follows the last part.
    pub tail: String,
    /// Length of the whole body: its exact `Content-Length`.
    pub total_len: u64,
}

/// One part of a [`Multipart`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Boundary and headers, with the empty line before the content.
    pub head: String,
    /// The bytes of the content that follow.
    pub range: Range<u64>,
}

impl Multipart {
    /// Lays out `ranges` of content that has `len` bytes and this media type.
    ///
    /// `nonce` makes the boundary; it must be random, so that the content cannot hold it on purpose.
    pub fn new(nonce: u128, media_type: &str, ranges: &[Range<u64>], len: u64) -> Self {
        let boundary = format!("layby-{nonce:032x}");
        let parts: Vec<Part> = ranges
            .iter()
            .enumerate()
            .map(|(index, range)| Part {
                head: head(&boundary, index == 0, media_type, range, len),
                range: range.clone(),
            })
            .collect();
        let tail = format!("\r\n--{boundary}--\r\n");
        let total_len = parts
            .iter()
            .map(|part| text_len(&part.head).saturating_add(part.len()))
            .fold(text_len(&tail), u64::saturating_add);
        Self {
            boundary,
            parts,
            tail,
            total_len,
        }
    }

    /// Value of the response's `Content-Type`.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }
}

impl Part {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

fn head(boundary: &str, is_first: bool, media_type: &str, range: &Range<u64>, len: u64) -> String {
    let break_before = if is_first { "" } else { "\r\n" };
    let content_range = ContentRange {
        range: range.clone(),
        total: Some(len),
    };
    format!(
        "{break_before}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {content_range}\r\n\r\n"
    )
}

fn text_len(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

//! Byte ranges: the `Range` and `Content-Range` headers and the body of several ranges (RFC 9110, section 14).

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

mod multipart;

pub use multipart::{Multipart, Part};

/// A `Range` header, read without knowing how long the content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSpec(Spec);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Spec {
    /// No header, another unit, or nothing that can be read: the header is ignored.
    Absent,
    /// At least one range, in the client's order.
    Wanted(Vec<Wanted>),
    /// A range whose end lies before its start: the whole header is unsatisfiable, as registries answer it.
    Backwards,
    /// More than [`RangeSpec::MAX`] ranges.
    TooMany,
}

/// One range as asked for. Numbers beyond `u64` are taken as its largest, which lies behind any content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// `first-last`, both inclusive.
    Between(u64, u64),
    /// `first-`
    From(u64),
    /// `-count`: the last bytes.
    Last(u64),
}

/// What a request with a `Range` header gets from content of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// The whole content with `200`: no header, or none that could be used.
    None,
    /// These ranges with `206`: one or more, none empty, clamped to the content, in the order asked for, never coalesced.
    Satisfiable(Vec<Range<u64>>),
    /// No range lies within the content: `416`.
    Unsatisfiable,
    /// More than is served at once: `400`, upon which clients ask for fewer.
    TooMany,
}

/// Reads a `Range` header; `None` where the request has none.
pub fn parse(header: Option<&[u8]>) -> RangeSpec {
    RangeSpec(header.map_or(Spec::Absent, parse_header))
}

impl RangeSpec {
    /// Most ranges that one header may ask for. containers/image asks for up to 1024.
    pub const MAX: usize = 1024;

    /// Whether the header is there and asks for ranges of bytes, satisfiable or not.
    pub fn is_ranged(&self) -> bool {
        self.0 != Spec::Absent
    }

    /// What the header means for content of `len` bytes.
    ///
    /// Ranges outside the content are left out as long as another one is inside. Together they may ask for no more than
    /// twice the content, so that a short header cannot cause an endless answer.
    pub fn resolve(&self, len: u64) -> Ranges {
        let wanted = match &self.0 {
            Spec::Absent => return Ranges::None,
            Spec::Backwards => return Ranges::Unsatisfiable,
            Spec::TooMany => return Ranges::TooMany,
            Spec::Wanted(wanted) => wanted,
        };
        let ranges: Vec<Range<u64>> = wanted.iter().filter_map(|one| one.within(len)).collect();
        if ranges.is_empty() {
            return Ranges::Unsatisfiable;
        }
        let total = ranges
            .iter()
            .try_fold(0_u64, |sum, range| sum.checked_add(range.end - range.start));
        match total {
            Some(total) if total <= len.saturating_mul(2) => Ranges::Satisfiable(ranges),
            _ => Ranges::TooMany,
        }
    }
}

impl Wanted {
    /// The part of the range that content of `len` bytes has; `None` when there is none.
    fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between(first, last) => first..last.saturating_add(1).min(len),
            Self::From(first) => first..len,
            Self::Last(count) => len.saturating_sub(count)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

fn parse_header(header: &[u8]) -> Spec {
    let Some(ranges) = std::str::from_utf8(header).ok().and_then(behind_unit) else {
        return Spec::Absent;
    };
    let mut wanted = Vec::new();
    let mut is_backwards = false;
    for text in ranges.split(',').map(|text| text.trim_matches([' ', '\t'])) {
        if text.is_empty() {
            continue; // RFC 9110, section 5.6.1.2: empty elements of a list mean nothing.
        }
        if wanted.len() == RangeSpec::MAX {
            return Spec::TooMany;
        }
        let Some(one) = parse_one(text) else {
            return Spec::Absent;
        };
        is_backwards |= matches!(one, Wanted::Between(first, last) if last < first);
        wanted.push(one);
    }
    if wanted.is_empty() {
        Spec::Absent
    } else if is_backwards {
        Spec::Backwards
    } else {
        Spec::Wanted(wanted)
    }
}

/// The text behind `bytes=`; `None` for another unit.
fn behind_unit(header: &str) -> Option<&str> {
    let (unit, rest) = header.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(rest)
}

fn parse_one(text: &str) -> Option<Wanted> {
    match text.split_once('-')? {
        ("", count) => Some(Wanted::Last(parse_number(count)?)),
        (first, "") => Some(Wanted::From(parse_number(first)?)),
        (first, last) => Some(Wanted::Between(parse_number(first)?, parse_number(last)?)),
    }
}

/// Reads digits alone; what does not fit is as large as can be.
fn parse_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The `Content-Range` of a `206`: which bytes of how many. Never empty, and within `total` where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that follow.
    pub range: Range<u64>,
    /// Length of the whole content; `None` for `*`.
    pub total: Option<u64>,
}

/// A text that is no `Content-Range` of bytes, or one that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Content-Range is written bytes first-last/total, with first ≤ last < total")]
pub struct ContentRangeError;

impl ContentRange {
    /// The `Content-Range` of a `416`, which names only the length.
    pub fn unsatisfied(total: u64) -> String {
        format!("bytes */{total}")
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        parse_content_range(text).ok_or(ContentRangeError)
    }
}

fn parse_content_range(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once([' ', '='])?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let first = parse_exact(first.trim())?;
    let end = parse_exact(last.trim())?.checked_add(1)?;
    let total = match total.trim() {
        "*" => None,
        total => Some(parse_exact(total)?),
    };
    let is_sound = first < end && total.is_none_or(|total| end <= total);
    is_sound.then_some(ContentRange {
        range: first..end,
        total,
    })
}

/// Reads digits alone, which must fit: these numbers place bytes in a file.
fn parse_exact(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.range.end.saturating_sub(1);
        write!(f, "bytes {}-{last}/", self.range.start)?;
        match self.total {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests;

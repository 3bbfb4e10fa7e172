//! Blobs: whole or in ranges, from wherever the proxy has them, while they arrive or at rest.

use std::collections::VecDeque;
use std::ops::Range;

use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, StatusCode, Version};

use crate::oci::{ContentRange, Digest, Multipart, RangeSpec, Ranges, Target, range};
use crate::proxy::{BlobAnswer, BlobUse};
use crate::server::answer::{Answer, Payload};
use crate::server::blob::{BlobSender, FileWay, Segment};
use crate::server::conditional::{client_has, range_applies};
use crate::server::reject::Rejection;
use crate::server::service::Exchange;

pub(in crate::server) async fn answer(
    exchange: &mut Exchange<'_>,
    target: &Target,
    digest: &Digest,
) -> Result<Answer, Rejection> {
    let selected = exchange.select(target)?;
    let service = exchange.service;
    let wanted = Wanted::of(exchange, digest);
    let blob = service
        .content
        .blob(&selected.place, digest, wanted.usage(), &exchange.call)
        .await?;
    let outcome = blob.outcome;
    exchange.record.set_cache(outcome);
    let answer = match (&wanted, blob.len) {
        (Wanted::Head | Wanted::Nothing, len) => {
            Answer::new(StatusCode::OK, Payload::Unsent(len)).with_static(CONTENT_TYPE, BYTES)
        }
        (Wanted::Ranges(spec), Some(total)) => parts(exchange, blob, spec, total)?,
        // A range of what has no length yet cannot be told; all of it is a right answer too.
        (Wanted::Whole | Wanted::Ranges(_), _) => whole(exchange, blob)?,
    };
    let answer = answer
        .with_digest(digest)
        .with_static(ACCEPT_RANGES, "bytes")
        .with_lifetime(true, service.clients.is_restricted())
        .with_outcome(outcome, None)
        .with_namespace(&selected);
    Ok(match wanted {
        Wanted::Nothing => answer.not_modified(),
        _ => answer,
    })
}

/// What the client wants of the blob. The entity tag being the digest, all conditions are decided before it is asked
/// for.
#[derive(Debug)]
enum Wanted {
    /// Its head: `HEAD`, for which ranges mean nothing (RFC 9110, section 14.2).
    Head,
    /// To hear that it is still there: the client has it.
    Nothing,
    Whole,
    Ranges(RangeSpec),
}

impl Wanted {
    fn of(exchange: &Exchange<'_>, digest: &Digest) -> Self {
        let headers = &exchange.request.headers;
        if client_has(headers, digest) {
            return Self::Nothing;
        }
        if exchange.request.method == Method::HEAD {
            return Self::Head;
        }
        let mut lines = headers.get_all(RANGE).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) if range_applies(headers, digest) => {
                let spec = range::parse(Some(line.as_bytes()));
                if spec.is_ranged() {
                    Self::Ranges(spec)
                } else {
                    Self::Whole
                }
            }
            _ => Self::Whole,
        }
    }

    fn usage(&self) -> BlobUse {
        match self {
            Self::Head | Self::Nothing => BlobUse::Head,
            Self::Whole => BlobUse::Full,
            Self::Ranges(spec) => BlobUse::Ranged(spec.clone()),
        }
    }
}

fn whole(exchange: &Exchange<'_>, blob: BlobAnswer) -> Result<Answer, Rejection> {
    let len = blob.len;
    if len.is_none() && !exchange.can_chunk() {
        return Err(Rejection::needs_http11());
    }
    let payload = payload(exchange, blob, VecDeque::from([Segment::Whole(len)]), len);
    Ok(Answer::new(StatusCode::OK, payload).with_static(CONTENT_TYPE, BYTES))
}

/// Ranges of a blob of `total` bytes.
fn parts(
    exchange: &Exchange<'_>,
    blob: BlobAnswer,
    spec: &RangeSpec,
    total: u64,
) -> Result<Answer, Rejection> {
    let mut ranges = match spec.resolve(total) {
        Ranges::None => return whole(exchange, blob),
        Ranges::Unsatisfiable => return Err(Rejection::unsatisfiable(total)),
        Ranges::TooMany => return Err(Rejection::too_many_ranges()),
        Ranges::Satisfiable(ranges) => ranges,
    };
    if ranges.len() == 1
        && let Some(range) = ranges.pop()
    {
        return Ok(one_part(exchange, blob, range, total));
    }
    let multipart = Multipart::new(fastrand::u128(..), BYTES, &ranges, total);
    let (content_type, len) = (multipart.content_type(), multipart.total_len);
    let payload = payload(exchange, blob, segments(multipart), Some(len));
    Ok(Answer::new(StatusCode::PARTIAL_CONTENT, payload).with(CONTENT_TYPE, &content_type))
}

/// The parts with their heads, and the end.
fn segments(multipart: Multipart) -> VecDeque<Segment> {
    let parts = multipart
        .parts
        .into_iter()
        .flat_map(|part| [Segment::Text(part.head.into()), Segment::Part(part.range)]);
    parts
        .chain([Segment::Text(multipart.tail.into())])
        .collect()
}

fn one_part(exchange: &Exchange<'_>, blob: BlobAnswer, range: Range<u64>, total: u64) -> Answer {
    let content_range = ContentRange {
        range: range.clone(),
        total: Some(total),
    };
    let segment = Segment::Part(range);
    let len = segment.len();
    let payload = payload(exchange, blob, VecDeque::from([segment]), len);
    Answer::new(StatusCode::PARTIAL_CONTENT, payload)
        .with_static(CONTENT_TYPE, BYTES)
        .with(CONTENT_RANGE, &content_range.to_string())
}

fn payload(
    exchange: &Exchange<'_>,
    blob: BlobAnswer,
    segments: VecDeque<Segment>,
    len: Option<u64>,
) -> Payload {
    let ahead = match exchange.request.version {
        // Of each stream, while frames of others go out.
        Version::HTTP_2 => 2,
        _ => 1,
    };
    let outlet = exchange.peer.outlet.clone();
    let way = FileWay::new(&exchange.service.reads, outlet, ahead);
    Payload::Blob(BlobSender::new(blob, segments, way), len)
}

/// The type of every blob: what it really is, its manifest says.
const BYTES: &str = "application/octet-stream";

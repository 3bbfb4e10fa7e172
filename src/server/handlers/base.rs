//! `/v2/`: this is a registry, and no login is wanted (distribution-spec, "Determining Support").

use bytes::Bytes;
use http::StatusCode;

use crate::server::answer::Answer;

pub(in crate::server) fn answer() -> Answer {
    Answer::json(StatusCode::OK, Bytes::from_static(b"{}"))
}

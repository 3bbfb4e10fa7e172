//! `/healthz`: the process answers. Says nothing of upstreams, nor of readiness.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::server::answer::{Answer, Payload};

pub(in crate::server) fn answer() -> Answer {
    Answer::new(StatusCode::OK, Payload::Memory(Bytes::from_static(b"ok\n")))
        .with_static(CONTENT_TYPE, "text/plain; charset=utf-8")
}

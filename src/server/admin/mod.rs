//! The admin listener: metrics, health, readiness, administration. Kept apart from the clients' listener so that it can be
//! kept from them. Never serves content; what changes anything, or tells what is stored, needs the admin token.

mod api;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::answer::{Answer, Payload};
use super::body::ResponseBody;
use super::connection::{Peer, Respond};
use super::handlers::health;
use super::request_body::RequestBody;
use crate::runtime::Readiness;
use crate::telemetry::Metrics;

pub use api::Administrator;
pub(super) use api::Api;

/// Answers operators and their probes.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) api: Api,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
}

impl Admin {
    fn answer(&self, request: &Parts) -> Answer {
        if request.method != Method::GET && request.method != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are served here\n",
            )
            .with_static(ALLOW, "GET, HEAD");
        }
        match request.uri.path() {
            "/metrics" => Answer::new(
                StatusCode::OK,
                Payload::Memory(Bytes::from(self.metrics.render())),
            )
            .with_static(CONTENT_TYPE, OPEN_METRICS),
            "/healthz" => health::answer(),
            "/readyz" => self.readiness(),
            _ => text(
                StatusCode::NOT_FOUND,
                "nothing here: ask for /metrics, /healthz, /readyz or /api/v1/…\n",
            ),
        }
        .with_static(CACHE_CONTROL, "no-store")
    }

    fn readiness(&self) -> Answer {
        if self.readiness.is_ready() {
            return text(StatusCode::OK, "ready\n");
        }
        let pending = self.readiness.pending().join(", ");
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {pending}\n"),
        )
    }
}

impl Respond for Admin {
    async fn respond(
        &self,
        _peer: &Peer,
        request: Parts,
        body: RequestBody,
    ) -> Response<ResponseBody> {
        let answer = if api::is_for(request.uri.path()) {
            self.api.answer(&request, body).await
        } else {
            self.answer(&request)
        };
        answer.into_unrecorded_response(&request.method)
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    Answer::new(status, Payload::Memory(text.into()))
        .with_static(CONTENT_TYPE, "text/plain; charset=utf-8")
}

/// What the metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

//! From a request's head to its answer: who asks, what for, and one log line when it is over.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{HeaderMap, HeaderValue, VIA};
use http::request::Parts;
use http::{Response, Version};
use tokio::time::Instant;

use super::admission::{Admission, Slot};
use super::answer::{API_VERSION, Answer};
use super::backend::Content;
use super::body::ResponseBody;
use super::clients::Clients;
use super::connection::{Peer, Respond};
use super::file::FileReads;
use super::handlers::{base, blobs, catalog, health, manifests, referrers, tags};
use super::record::Record;
use super::reject::Rejection;
use super::request_body::RequestBody;
use super::request_id::{RequestId, X_REQUEST_ID};
use crate::config::Config;
use crate::oci::{Route, Target};
use crate::proxy::Selected;
use crate::telemetry::Metrics;
use crate::upstream::{Call, is_own_via};

/// Answers what registries' clients ask.
pub(super) struct Service {
    pub(super) content: Arc<dyn Content>,
    pub(super) reads: Arc<FileReads>,
    pub(super) clients: Clients,
    /// Whether `/v2/_catalog` is answered.
    pub(super) catalog: bool,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    header_timeout: Duration,
    /// Which `Via` is our own.
    instance_id: Box<str>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// One request on its way through a handler.
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Service,
    pub(super) peer: &'a Peer,
    pub(super) request: &'a Parts,
    pub(super) call: Call,
    pub(super) record: &'a mut Record,
}

impl Service {
    pub(super) fn new(
        config: &Config,
        content: Arc<dyn Content>,
        reads: &Arc<FileReads>,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
        instance_id: &str,
    ) -> Self {
        Self {
            content,
            reads: Arc::clone(reads),
            clients: Clients::new(&config.clients),
            catalog: config.catalog,
            admission,
            metrics,
            header_timeout: config.limits.header_timeout,
            instance_id: instance_id.into(),
        }
    }

    /// Finds the route and runs its handler, before the deadline.
    async fn answer(
        &self,
        peer: &Peer,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Answer, Rejection> {
        let deadline = Instant::now() + self.header_timeout;
        let route = Route::parse(&request.method, &request.uri);
        if let Ok(route) = &route {
            note(record, route);
        }
        // Health is no content, and probes come from where clients do not.
        if !matches!(route, Ok(Route::Health)) && !self.clients.permit(peer.address.ip()) {
            return Err(Rejection::not_a_client(peer.address.ip()));
        }
        if went_round(&request.headers, &self.instance_id) {
            return Err(Rejection::went_round());
        }
        let exchange = Exchange {
            service: self,
            peer,
            request,
            call: Call {
                deadline,
                via: own_via(&request.headers),
            },
            record,
        };
        // Whatever is asked keeps to the deadline and may then fall back to something stale; this is for the rest.
        tokio::time::timeout_at(deadline + MARGIN, exchange.run(route?))
            .await
            .unwrap_or_else(|_| Err(Rejection::too_slow()))
    }

    /// The same, if there is room for the request; whatever happens to it happens to no other.
    async fn answer_alone(
        &self,
        peer: &Peer,
        request: &Parts,
        record: &mut Record,
    ) -> (Result<Answer, Rejection>, Option<Slot>) {
        // In HTTP/1 the connection's own slot is for its only request.
        let slot = match request.version {
            Version::HTTP_2 => match self.admission.admit(peer.address.ip()) {
                Ok(slot) => Some(slot),
                Err(full) => return (Err(Rejection::full(full)), None),
            },
            _ => None,
        };
        let answer = AssertUnwindSafe(self.answer(peer, request, record)).catch_unwind();
        let answer = answer.await.unwrap_or_else(|_| Err(Rejection::fault()));
        (answer, slot)
    }
}

impl Respond for Service {
    async fn respond(
        &self,
        peer: &Peer,
        request: Parts,
        _unread: RequestBody,
    ) -> Response<ResponseBody> {
        let id = RequestId::of(&request.headers);
        let mut record = Record::new(
            &self.metrics,
            id,
            peer.address.ip().to_canonical(),
            &request.method,
            request.uri.path(),
        );
        let (answer, slot) = self.answer_alone(peer, &request, &mut record).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(rejection) => {
                record.set_error(rejection.reason(), rejection.message());
                rejection.into_answer(record.id())
            }
        };
        let mut answer = answer.with(X_REQUEST_ID, record.id().as_str());
        if request.uri.path() != "/healthz" {
            answer = answer.with_static(API_VERSION, "registry/2.0");
        }
        answer
            .into_response(&request.method, record)
            .map(|body| body.holding(slot))
    }
}

impl Exchange<'_> {
    async fn run(mut self, route: Route) -> Result<Answer, Rejection> {
        match route {
            Route::Health => Ok(health::answer()),
            Route::Base => Ok(base::answer()),
            Route::Catalog { n, last } => catalog::answer(&self, n, last.as_deref()).await,
            Route::Manifest { target, reference } => {
                manifests::answer(&mut self, &target, &reference).await
            }
            Route::Blob { target, digest } => blobs::answer(&mut self, &target, &digest).await,
            Route::Tags { target, query } => tags::answer(&mut self, &target, &query).await,
            Route::Referrers {
                target,
                digest,
                artifact_types,
                query,
            } => {
                let asked = referrers::Asked {
                    digest: &digest,
                    artifact_types: &artifact_types,
                    query: &query,
                };
                referrers::answer(&mut self, &target, &asked).await
            }
        }
    }

    /// Whose content the request is for.
    pub(super) fn select(&mut self, target: &Target) -> Result<Selected, Rejection> {
        let selected = self.service.content.select(target, self.host())?;
        self.record.set_place(&selected.place);
        Ok(selected)
    }

    /// The host that the client calls us: from the request line where it stands there (HTTP/2, absolute form), else
    /// from `Host`.
    fn host(&self) -> Option<&str> {
        let header = || self.request.headers.get(http::header::HOST)?.to_str().ok();
        self.request
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(header)
    }

    /// Whether a body without a length can be told from a broken one.
    pub(super) fn can_chunk(&self) -> bool {
        self.request.version >= Version::HTTP_11
    }
}

/// Lets the log line say what was asked for.
fn note(record: &mut Record, route: &Route) {
    let ns = |target: &Target| target.ns.clone();
    let (name, ns, reference) = match route {
        Route::Health => ("health", None, None),
        Route::Base => ("base", None, None),
        Route::Catalog { .. } => ("catalog", None, None),
        Route::Manifest { target, reference } => {
            ("manifest", ns(target), Some(reference.to_string()))
        }
        Route::Blob { target, digest } => ("blob", ns(target), Some(digest.to_string())),
        Route::Tags { target, .. } => ("tags", ns(target), None),
        Route::Referrers { target, digest, .. } => {
            ("referrers", ns(target), Some(digest.to_string()))
        }
    };
    record.set_route(name);
    record.set_asked(ns, reference);
}

/// The client's `Via`, of several lines one after the other, in memory of its own: as it came it is a piece of the whole head, login and all, and would keep that for
/// as long as somebody remembers who asked.
fn own_via(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut joined = Vec::new();
    let lines = headers.get_all(VIA).iter().filter(|line| !line.is_empty());
    for line in lines {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(line.as_bytes());
    }
    if joined.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&joined).ok()
}

/// Whether the request has passed through this instance.
fn went_round(headers: &HeaderMap, instance_id: &str) -> bool {
    let mut lines = headers.get_all(VIA).iter();
    lines.any(|via| is_own_via(via, instance_id))
}

/// Past `header_timeout`, still below the 30 s that containerd waits where that has its default.
const MARGIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_kept_of_a_request_does_not_keep_its_whole_head() {
        let head = Bytes::from_static(b"Authorization: Basic dXNlcjpwdw==\r\nVia: 1.1 other\r\n");
        let via = HeaderValue::from_maybe_shared(head.slice(40..49)).unwrap();
        assert!(head.as_ptr_range().contains(&via.as_bytes().as_ptr()));
        let kept = own_via(&HeaderMap::from_iter([(VIA, via)])).unwrap();
        assert_eq!(kept, "1.1 other");
        assert!(!head.as_ptr_range().contains(&kept.as_bytes().as_ptr()));
    }

    #[test]
    fn a_via_of_several_lines_is_kept_whole_and_in_order() {
        let kept = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| HeaderValue::from_static(line));
            let headers: HeaderMap = lines.map(|line| (VIA, line)).collect();
            own_via(&headers).map(|via| via.to_str().unwrap().to_owned())
        };
        let all = kept(&["1.1 a, 1.0 b", "", "1.1 c"]);
        assert_eq!(all.as_deref(), Some("1.1 a, 1.0 b, 1.1 c"));
        assert_eq!(kept(&[""]), None);
        assert_eq!(kept(&[]), None);
    }
}

//! What one request came to: its log line and its metrics, once its answer has gone out or broken off.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::request_id::RequestId;
use crate::proxy::{BrokenBody, CacheOutcome, Place};
use crate::telemetry::Metrics;

/// Gathers what is known of a request. Dropping it writes the line: when the body was sent, when it broke, or when the
/// client left before there was an answer.
#[derive(Debug)]
pub(super) struct Record {
    metrics: Arc<Metrics>,
    started: Instant,
    id: RequestId,
    client: IpAddr,
    method: Method,
    path: Box<str>,
    ns: Option<Box<str>>,
    route: &'static str,
    place: Option<Place>,
    reference: Option<Box<str>>,
    cache: Option<CacheOutcome>,
    source: Option<&'static str>,
    status: Option<u16>,
    sent: u64,
    /// Of `sent`: what the metrics do not know yet.
    uncounted: u64,
    first_byte: Option<Duration>,
    end: End,
    error: Option<(&'static str, Box<str>)>,
}

/// How the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left, or was cut; also the state before any other end.
    Left,
    Complete,
    Broken,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Left => "client_left",
            Self::Complete => "complete",
            Self::Broken => "broken",
        }
    }
}

impl Record {
    /// Of a request that has just arrived.
    pub(super) fn new(
        metrics: &Arc<Metrics>,
        id: RequestId,
        client: IpAddr,
        method: &Method,
        path: &str,
    ) -> Self {
        let path = &path[..path.floor_char_boundary(LOGGED_PATH)];
        Self {
            metrics: Arc::clone(metrics),
            started: Instant::now(),
            id,
            client,
            method: method.clone(),
            path: path.into(),
            ns: None,
            route: "none",
            place: None,
            reference: None,
            cache: None,
            source: None,
            status: None,
            sent: 0,
            uncounted: 0,
            first_byte: None,
            end: End::Left,
            error: None,
        }
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    /// The kind of request, from the closed set of routes.
    pub(super) fn set_route(&mut self, route: &'static str) {
        self.route = route;
    }

    /// What was asked for: the namespace and the tag or digest.
    pub(super) fn set_asked(&mut self, ns: Option<String>, reference: Option<String>) {
        self.ns = ns.map(Into::into);
        self.reference = reference.map(Into::into);
    }

    /// Where it belongs.
    pub(super) fn set_place(&mut self, place: &Place) {
        self.place = Some(place.clone());
    }

    /// What the cache did.
    pub(super) fn set_cache(&mut self, outcome: CacheOutcome) {
        self.cache = Some(outcome);
        self.source.get_or_insert(match outcome {
            CacheOutcome::Miss | CacheOutcome::Forwarded => "upstream",
            CacheOutcome::Collapsed => "flight",
            CacheOutcome::Bypass(_) => "bypass",
            CacheOutcome::Hit
            | CacheOutcome::Revalidated
            | CacheOutcome::Stale(_)
            | CacheOutcome::Negative => "cache",
        });
    }

    /// Where the body's bytes come from, when that is known better than from the outcome.
    pub(super) fn set_source(&mut self, source: &'static str) {
        self.source = Some(source);
    }

    /// The status line that goes out.
    pub(super) fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Why there is no content, for the log line.
    pub(super) fn set_error(&mut self, reason: &'static str, message: &str) {
        self.error = Some((reason, message.into()));
    }

    /// Counts body bytes on their way out.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.first_byte_is_out();
        self.sent += bytes;
        self.uncounted += bytes;
        if self.uncounted >= COUNT_EVERY {
            self.count();
        }
    }

    /// All of the answer was handed over.
    pub(super) fn complete(&mut self) {
        self.first_byte_is_out();
        self.end = End::Complete;
    }

    /// The body had to be broken off.
    pub(super) fn broken(&mut self, error: &BrokenBody) {
        self.end = End::Broken;
        self.set_error(error.reason, &error.message);
    }

    fn first_byte_is_out(&mut self) {
        if self.first_byte.is_none() {
            let after = self.started.elapsed();
            self.first_byte = Some(after);
            self.metrics
                .downstream
                .first_byte(self.cache_label(), after);
        }
    }

    fn count(&mut self) {
        if let (Some(place), Some(source), 1..) = (&self.place, self.source, self.uncounted) {
            let upstream = place.upstream.as_str();
            self.metrics
                .downstream
                .served(upstream, source, self.uncounted);
        }
        self.uncounted = 0;
    }

    fn cache_label(&self) -> &'static str {
        self.cache.map_or("none", CacheOutcome::as_str)
    }

    /// One line. Its query is left out, since clients may put secrets there; `ns` is all that matters of it.
    fn write(&self, status: u16) {
        let detail = match self.cache {
            Some(CacheOutcome::Stale(reason)) => Some(reason.as_str()),
            Some(CacheOutcome::Bypass(reason)) => Some(reason.as_str()),
            _ => None,
        };
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    request_id = %self.id,
                    client = %self.client,
                    method = %self.method,
                    path = &*self.path,
                    ns = self.ns.as_deref(),
                    route = self.route,
                    upstream = self.place.as_ref().map(|place| place.upstream.as_str()),
                    repository = self.place.as_ref().map(|place| place.repository.as_str()),
                    reference = self.reference.as_deref(),
                    cache = self.cache_label(),
                    cache_detail = detail,
                    status,
                    sent_bytes = self.sent,
                    first_byte_ms = self.first_byte.map(milliseconds),
                    elapsed_ms = milliseconds(self.started.elapsed()),
                    end = self.end.as_str(),
                    reason = self.error.as_ref().map(|(reason, _)| *reason),
                    error = self.error.as_ref().map(|(_, message)| &**message),
                    "request"
                )
            };
        }
        match (self.route, status, self.end) {
            (_, _, End::Broken) | (_, 500.., _) => line!(warn),
            ("health", 200, _) => line!(debug),
            _ => line!(info),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count();
        let status = self.status.unwrap_or(CLIENT_LEFT);
        let downstream = &self.metrics.downstream;
        downstream.request(self.route, status, self.cache_label());
        if let Some(place) = &self.place {
            let is_hit = self.cache.is_some_and(CacheOutcome::is_stored);
            self.metrics.tally.request(place.upstream.as_str(), is_hit);
        }
        self.write(status);
    }
}

/// With three digits behind the point.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Bytes of a path that are logged.
const LOGGED_PATH: usize = 512;
/// Bytes after which a long body's progress shows in the metrics.
const COUNT_EVERY: u64 = 8 * 1024 * 1024;
/// Logged where no status line went out, as nginx does.
const CLIENT_LEFT: u16 = 499;

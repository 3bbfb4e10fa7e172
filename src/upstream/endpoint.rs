//! One URL of an upstream: how a question becomes requests, and which of their answers count.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RANGE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::agent::{Agent, common_headers};
use super::answer::{Refusal, Reply, parse_number};
use super::auth::{Access, Authenticator};
use super::exchange::Exchange;
use super::failure::{Failure, Kind};
use super::health::{Load, PullPass, Pulls};
use super::net::{Body, Origin, Outgoing, without_secrets};
use super::paths::Paths;
use super::{Error, SetupError, redirect};
use crate::config;
use crate::oci::RepoName;
use crate::runtime::Clock;
use crate::telemetry::Metrics;

/// What is asked of an upstream.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// `GET` or `HEAD`.
    pub(super) method: Method,
    /// Label in metrics.
    pub(super) kind: &'static str,
    /// What it takes of the upstream.
    pub(super) load: Load,
    /// As the upstream names it, before the URL's own prefix.
    pub(super) repository: &'a RepoName,
    /// What follows the repository: `manifests/latest`.
    pub(super) path: String,
    /// Encoded, without `ns`; may be empty.
    pub(super) query: &'a str,
    /// `Accept`.
    pub(super) accept: Option<&'static str>,
    /// `Range`.
    pub(super) range: Option<HeaderValue>,
    /// `Via`, this instance included.
    pub(super) via: Option<HeaderValue>,
}

impl Question<'_> {
    /// Whether Docker Hub counts it as a pull.
    fn is_pull(&self) -> bool {
        self.method == Method::GET && self.kind == MANIFEST
    }

    /// Whether it is a `HEAD` of a manifest, whose refusal has no body that says what there is too much of.
    fn is_look(&self) -> bool {
        self.method == Method::HEAD && self.path.starts_with("manifests/")
    }
}

/// Label of the questions for manifests.
pub(super) const MANIFEST: &str = "manifest";

/// One URL of an upstream.
pub(super) struct Endpoint {
    upstream: Arc<config::Upstream>,
    home: Origin,
    paths: Paths,
    agent: Arc<Agent>,
    auth: Authenticator,
    pulls: Pulls,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Endpoint {
    /// The endpoint at `url`, asked through `agent`.
    pub(super) fn new(
        upstream: &Arc<config::Upstream>,
        url: &config::UpstreamUrl,
        home: Origin,
        agent: Arc<Agent>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let paths = Paths::of(&url.url).ok_or_else(|| SetupError::Path {
            upstream: upstream.name.clone(),
            url: without_secrets(&url.url),
        })?;
        let exchange: Arc<dyn Exchange> = Arc::<Agent>::clone(&agent);
        let base = paths.base(&url.url);
        Ok(Self {
            auth: Authenticator::new(upstream, url, base, exchange, Arc::clone(&metrics)),
            pulls: Pulls::new(&upstream.name, clock.clone(), Arc::clone(&metrics)),
            upstream: Arc::clone(upstream),
            home,
            paths,
            agent,
            clock,
            metrics,
        })
    }

    /// Fails at once where the URL's host is left alone.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.agent.origins().check(&self.home)
    }

    /// Where its API is, as may be shown.
    pub(super) fn base(&self) -> String {
        format!("{}{}", self.home, self.paths.api())
    }

    /// The proxy that connections to it go through, as may be shown.
    pub(super) fn proxy(&self) -> Option<String> {
        self.agent.proxy_for(&self.home)
    }

    /// Whether it lets us in, seen without asking for content.
    pub(super) async fn look(&self, deadline: Instant) -> Result<Access, Error> {
        self.check()?;
        self.auth.probe(deadline).await
    }

    /// Asks, with whatever authentication and redirects it takes. The answer is a success, or a `416`.
    pub(super) async fn ask(
        &self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        self.check()?;
        let pull = self.pull(question, deadline).await?;
        let result = self.ask_authorized(question, deadline).await;
        let is_answered = match &result {
            Ok(_) => true,
            Err(failure) => matches!(failure.error, Error::NotFound { .. }),
        };
        if let Some(pull) = pull.filter(|_| is_answered) {
            pull.answered();
        }
        result
    }

    /// Leave to ask for a manifest, where one is asked for and any are held.
    async fn pull(
        &self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Option<PullPass<'_>>, Failure> {
        let is_limited = question.is_pull() || question.is_look();
        if !is_limited || !self.pulls.are_held() {
            return Ok(None);
        }
        let puller = self.auth.puller(deadline).await;
        self.pulls.admit(puller, question.is_pull()).map(Some)
    }

    async fn ask_authorized(
        &self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let repository = self.paths.repository(question.repository)?;
        let url = self.url(&repository, question)?;
        let mut authorization = self.auth.authorization(&repository, deadline).await?;
        let (mut renewed, mut redirected_again) = (false, false);
        loop {
            let reply = self
                .follow(&url, question, authorization.as_ref(), deadline)
                .await?;
            let status = reply.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                self.auth.accepted(&repository, authorization.as_ref());
                return Ok(reply);
            }
            let may_be_expired = matches!(status.as_u16(), 400 | 401 | 403);
            if may_be_expired && reply.strayed && !redirected_again {
                // A signed URL that is no longer good: the registry gives another.
                redirected_again = true;
                reply.response.into_body().discard();
                continue;
            }
            let refusal = reply.refuse(deadline).await;
            let (answer, sent) = (refusal.as_refused(), authorization.as_ref());
            if may_be_expired && !refusal.strayed && !renewed {
                renewed = true;
                let better = self.auth.challenged(&answer, &repository, sent, deadline);
                if let Some(header) = better.await? {
                    authorization = Some(header);
                    continue;
                }
            }
            let now = self.clock.now();
            let error = match refusal.to_error(sent, now) {
                error @ Error::NotFound { .. } => {
                    // Whoever looks for something for us has not refused our login.
                    self.auth.accepted(&repository, sent);
                    error
                }
                Error::Denied { .. } if !refusal.strayed => {
                    self.auth.denied(&answer, &repository, sent)
                }
                Error::RateLimited {
                    retry_after,
                    message,
                } => {
                    let held = self.hold(question, &refusal, sent, retry_after, deadline);
                    Error::RateLimited {
                        retry_after: Some(held.await),
                        message,
                    }
                }
                error => error,
            };
            return Err(refusal.to_failure(error, now));
        }
    }

    /// Holds what `refusal` says is too much of; gives for how long.
    async fn hold(
        &self,
        question: &Question<'_>,
        refusal: &Refusal,
        sent: Option<&HeaderValue>,
        retry_after: Option<Duration>,
        deadline: Instant,
    ) -> Duration {
        let pull_limit = refusal
            .pull_limit(sent)
            .filter(|_| question.is_pull() && !refusal.strayed);
        if let Some(said) = pull_limit {
            let puller = self.auth.puller(deadline).await;
            self.pulls.limited(puller, retry_after, said)
        } else if question.is_look() && !refusal.strayed && refusal.is_mute_limit() {
            let puller = self.auth.puller(deadline).await;
            let said = format!("{} answered 429", refusal.from);
            self.pulls.looks_limited(puller, retry_after, said)
        } else {
            self.agent.origins().limited(&refusal.origin, retry_after)
        }
    }

    fn url(&self, repository: &RepoName, question: &Question<'_>) -> Result<Url, Error> {
        let Self { home, paths, .. } = self;
        let mut text = format!("{home}{}{repository}/{}", paths.api(), question.path);
        let mut joint = '?';
        if !question.query.is_empty() {
            text.push(joint);
            text.push_str(question.query);
            joint = '&';
        }
        if self.upstream.send_ns {
            let name = self.upstream.name.as_str().as_bytes();
            text.push(joint);
            text.push_str("ns=");
            text.extend(form_urlencoded::byte_serialize(name));
        }
        text.parse()
            .map_err(|error| Error::invalid(format!("{home} cannot be asked: {error}")))
    }

    /// Sends the question and follows redirects. Our login stays behind at the first step to another origin, for good;
    /// a registry there that wants a token gets one of its own.
    async fn follow(
        &self,
        first: &Url,
        question: &Question<'_>,
        authorization: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let mut request = Outgoing {
            method: question.method.clone(),
            url: first.clone(),
            headers: headers(question, authorization),
            body: Bytes::new(),
            reader: question.load.reader(),
        };
        let mut origin = self.home.clone();
        let (mut strayed, mut challenged) = (false, false);
        for _ in 0..=redirect::MAX_REDIRECTS {
            let kind = if strayed { "redirect" } else { question.kind };
            let response = self.send(&origin, &request, kind, deadline).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && origin != self.home && !challenged {
                challenged = true;
                let (sent, headers) = (request.headers.get(AUTHORIZATION), response.headers());
                let asked = self
                    .auth
                    .guest_challenged(&request.url, headers, sent, deadline);
                if let Some(token) = asked.await? {
                    response.into_body().discard();
                    request.headers.insert(AUTHORIZATION, token);
                    continue;
                }
            }
            if !redirect::is_redirect(status) {
                let sent = request.headers.get(AUTHORIZATION);
                return Ok(Reply::new(&request.url, origin, strayed, sent, response));
            }
            let (next, next_origin) =
                redirect::target(&request.url, &self.home, response.headers())?;
            response.into_body().discard();
            if next_origin != origin {
                request.headers.remove(AUTHORIZATION);
            }
            strayed |= next_origin != self.home;
            if next_origin != self.home
                && let Some(token) = self.auth.guest(&next, deadline).await
            {
                request.headers.insert(AUTHORIZATION, token);
            }
            (request.url, origin) = (next, next_origin);
        }
        Err(redirect::too_many(first).into())
    }

    async fn send(
        &self,
        origin: &Origin,
        request: &Outgoing,
        kind: &'static str,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let began = StdInstant::now();
        let result = self.agent.send(origin, request, deadline).await;
        if let Err(failure) = &result
            && failure.kind == Kind::Shut
        {
            return result;
        }
        let status = result.as_ref().map(Response::status).ok();
        let status = status.as_ref().map_or("error", StatusCode::as_str);
        let upstream = self.upstream.name.as_str();
        self.metrics.upstream.request(upstream, kind, status);
        tracing::debug!(
            upstream,
            method = %request.method,
            url = without_secrets(&request.url),
            status,
            elapsed_ms = began.elapsed().as_millis(),
            "upstream asked"
        );
        if let Ok(response) = &result
            && *origin == self.home
        {
            self.note_quota(response.headers());
        }
        result
    }

    /// Keeps what Docker Hub says of our pulls: `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600`.
    fn note_quota(&self, headers: &HeaderMap) {
        let (metrics, upstream) = (&self.metrics.upstream, self.upstream.name.as_str());
        if let Some(limit) = pulls_in(headers, &RATELIMIT_LIMIT) {
            metrics.rate_limit(upstream, limit);
        }
        if let Some(left) = pulls_in(headers, &RATELIMIT_REMAINING) {
            metrics.rate_limit_remaining(upstream, left);
        }
    }
}

const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");

/// The number before the window in a header of Docker Hub's.
fn pulls_in(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    parse_number(text.split(';').next()?.trim())
}

fn headers(question: &Question<'_>, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = common_headers();
    if let Some(accept) = question.accept {
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
    }
    let optional = [
        (RANGE, question.range.as_ref()),
        (VIA, question.via.as_ref()),
        (AUTHORIZATION, authorization),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    headers
}

//! One URL of an upstream: how a question becomes requests, and which of their answers count.

use std::sync::Arc;
use std::time::Instant as StdInstant;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, RANGE, USER_AGENT, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use tokio::time::Instant;
use url::Url;

use super::answer::{Reply, parse_number, read_whole};
use super::auth::Authenticator;
use super::exchange::{BoxFuture, Exchange, SMALL_BODY};
use super::net::{Body, Origin, Outgoing, Pool, without_secrets};
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

/// One URL of an upstream.
pub(super) struct Endpoint {
    upstream: Arc<config::Upstream>,
    home: Origin,
    paths: Paths,
    agent: Arc<Agent>,
    auth: Authenticator,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Where a URL's path goes.
///
/// Registries have their API at `/v2/` and tell repositories apart behind it, so a path is a prefix of the repository
/// names: with `https://harbor.example/project`, `app` is asked for as `/v2/project/app/…`, and tokens are asked for
/// `project/app`. A path with a component `v2` says itself where the API is: `https://example/ghcr.io/v2` asks for
/// `/ghcr.io/v2/app/…`, and what follows the `v2` is a prefix as above.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Paths {
    /// Before `/v2/`: empty, or starting with a slash.
    before: String,
    /// Before the repository: empty, or components without a final slash.
    prefix: String,
}

impl Paths {
    fn of(url: &Url) -> Option<Self> {
        let components: Vec<&str> = url
            .path()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let at = components.iter().position(|part| *part == "v2");
        let (before, prefix) = match at {
            Some(at) => components.split_at(at),
            None => components.split_at(0),
        };
        let prefix = prefix
            .iter()
            .skip(usize::from(at.is_some()))
            .copied()
            .collect::<Vec<_>>()
            .join("/");
        let paths = Self {
            before: before.iter().flat_map(|part| ["/", part]).collect(),
            prefix,
        };
        (paths.prefix.is_empty() || paths.prefix.parse::<RepoName>().is_ok()).then_some(paths)
    }

    /// The repository as this URL's registry names it.
    fn repository(&self, repository: &RepoName) -> Result<RepoName, Error> {
        if self.prefix.is_empty() {
            return Ok(repository.clone());
        }
        repository.prefixed(&self.prefix).map_err(|error| {
            Error::invalid(format!(
                "{}/{repository} cannot be asked for: {error}",
                self.prefix
            ))
        })
    }
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
        Ok(Self {
            auth: Authenticator::new(upstream, url, exchange, Arc::clone(&metrics)),
            upstream: Arc::clone(upstream),
            home,
            paths,
            agent,
            clock,
            metrics,
        })
    }

    /// Asks, with whatever authentication and redirects it takes. The answer is a success, or a `416`.
    pub(super) async fn ask(
        &self,
        question: &Question<'_>,
        deadline: Instant,
    ) -> Result<Reply, Error> {
        let repository = self.paths.repository(question.repository)?;
        let url = self.url(&repository, question)?;
        let mut authorization = self.auth.authorization(&repository, deadline).await?;
        let (mut renewed, mut redirected_again) = (false, false);
        loop {
            let reply = self
                .follow(&url, question, authorization.as_ref(), deadline)
                .await?;
            let status = reply.status();
            if status.is_success() || status == http::StatusCode::RANGE_NOT_SATISFIABLE {
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
            return Err(match refusal.to_error(sent, self.clock.now()) {
                Error::Denied { .. } if !refusal.strayed => {
                    self.auth.denied(&answer, &repository, sent)
                }
                error => error,
            });
        }
    }

    fn url(&self, repository: &RepoName, question: &Question<'_>) -> Result<Url, Error> {
        let Self {
            home,
            paths: Paths { before, .. },
            ..
        } = self;
        let mut text = format!("{home}{before}/v2/{repository}/{}", question.path);
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

    /// Sends the question and follows redirects. Our login stays behind at the first step to another origin, for good.
    async fn follow(
        &self,
        first: &Url,
        question: &Question<'_>,
        authorization: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Reply, Error> {
        let mut request = Outgoing {
            method: question.method.clone(),
            url: first.clone(),
            headers: headers(question, authorization),
            body: Bytes::new(),
        };
        let mut strayed = false;
        for _ in 0..=redirect::MAX_REDIRECTS {
            let kind = if strayed { "redirect" } else { question.kind };
            let response = self.send(&request, kind, deadline).await?;
            if !redirect::is_redirect(response.status()) {
                return Ok(Reply::new(&request.url, strayed, response));
            }
            let next = redirect::target(&request.url, &self.home, response.headers())?;
            response.into_body().discard();
            if Origin::of(&next) != Origin::of(&request.url) {
                request.headers.remove(AUTHORIZATION);
            }
            strayed |= Origin::of(&next).as_ref() != Some(&self.home);
            request.url = next;
        }
        Err(redirect::too_many(first))
    }

    async fn send(
        &self,
        request: &Outgoing,
        kind: &'static str,
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        let began = StdInstant::now();
        let result = self.agent.pool.send(request, deadline).await;
        let status = result.as_ref().map(Response::status).ok();
        let status = status.as_ref().map_or("error", http::StatusCode::as_str);
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
        if let Ok(response) = &result {
            self.note_quota(response.headers());
        }
        result
    }

    /// Keeps what Docker Hub says is left: `ratelimit-remaining: 76;w=21600`.
    fn note_quota(&self, headers: &HeaderMap) {
        let left = headers
            .get(RATELIMIT_REMAINING)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split(';').next())
            .and_then(|text| parse_number(text.trim()));
        if let Some(left) = left {
            self.metrics
                .upstream
                .rate_limit_remaining(self.upstream.name.as_str(), left);
        }
    }
}

const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");

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

/// What every request carries.
fn common_headers() -> HeaderMap {
    const AGENT: &str = concat!("layby/", env!("CARGO_PKG_VERSION"));
    HeaderMap::from_iter([
        (USER_AGENT, HeaderValue::from_static(AGENT)),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ])
}

/// Sends requests as they are, for the endpoint and for its authenticator.
#[derive(Debug)]
pub(super) struct Agent {
    pool: Arc<Pool>,
}

impl Agent {
    /// An agent that uses the connections of `pool`.
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }
}

impl Exchange for Agent {
    fn send(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Response<Bytes>, Error>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let url: Url = head
                .uri
                .to_string()
                .parse()
                .map_err(|_| Error::invalid("a token realm is no URL that can be asked"))?;
            let mut headers = head.headers;
            for (name, value) in &common_headers() {
                headers.entry(name).or_insert_with(|| value.clone());
            }
            let from = without_secrets(&url);
            let request = Outgoing {
                method: head.method,
                url,
                headers,
                body,
            };
            let (head, body) = self.pool.send(&request, deadline).await?.into_parts();
            let body = read_whole(&from, body, SMALL_BODY, deadline).await?;
            Ok(Response::from_parts(head, body))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(url: &str) -> Option<(String, String)> {
        Paths::of(&url.parse().unwrap()).map(|paths| (paths.before, paths.prefix))
    }

    #[test]
    fn a_urls_path_prefixes_the_repository_unless_it_says_where_v2_is() {
        let pair = |before: &str, prefix: &str| Some((before.to_owned(), prefix.to_owned()));
        assert_eq!(paths("https://r.example"), pair("", ""));
        assert_eq!(paths("https://r.example/project"), pair("", "project"));
        assert_eq!(paths("https://r.example/a/b/"), pair("", "a/b"));
        assert_eq!(paths("https://r.example/ghcr.io/v2"), pair("/ghcr.io", ""));
        assert_eq!(paths("https://r.example/v2/project"), pair("", "project"));
        assert_eq!(paths("https://r.example/x/y/v2/p/q"), pair("/x/y", "p/q"));
        assert_eq!(paths("https://r.example/Project"), None);
    }
}

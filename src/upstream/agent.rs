//! Sends single requests, for an endpoint and for its authenticator, and lets health know what became of each.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::Error;
use super::answer::{read_whole, retry_after};
use super::exchange::{BoxFuture, Exchange, SMALL_BODY};
use super::failure::{Failure, Kind};
use super::health::{Origins, Tries};
use super::net::{Body, Origin, Outgoing, Pool, Reader, without_secrets};
use crate::runtime::Clock;

/// Sends requests as they are to hosts that are not left alone.
#[derive(Debug)]
pub(super) struct Agent {
    pool: Arc<Pool>,
    origins: Arc<Origins>,
    clock: Clock,
}

/// What every request carries.
pub(super) fn common_headers() -> HeaderMap {
    const AGENT: &str = concat!("layby/", env!("CARGO_PKG_VERSION"));
    HeaderMap::from_iter([
        (USER_AGENT, HeaderValue::from_static(AGENT)),
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ])
}

impl Agent {
    /// An agent that uses the connections of `pool`.
    pub(super) fn new(pool: Arc<Pool>, origins: Arc<Origins>, clock: Clock) -> Self {
        Self {
            pool,
            origins,
            clock,
        }
    }

    /// What is known of the hosts.
    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The proxy that connections to `origin` go through, without user and password.
    pub(super) fn proxy_for(&self, origin: &Origin) -> Option<String> {
        self.pool.proxy_for(origin)
    }

    /// Sends `request` to `origin`, where its URL is; returns when the answer's head is there.
    pub(super) async fn send(
        &self,
        origin: &Origin,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let pass = self.origins.admit(origin)?;
        let result = self.pool.send(request, deadline).await;
        match &result {
            Ok(response) => pass.answered(response.status()),
            Err(failure) => pass.failed(failure),
        }
        result
    }

    /// Sends `request` once and reads its answer.
    async fn exchange(
        &self,
        origin: &Origin,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Failure> {
        let (head, body) = self.send(origin, request, deadline).await?.into_parts();
        if head.status == StatusCode::TOO_MANY_REQUESTS {
            let wait = retry_after(&head.headers, self.clock.now());
            self.origins.limited(origin, wait);
        }
        let from = without_secrets(&request.url);
        let body = read_whole(&from, body, SMALL_BODY, deadline).await?;
        Ok(Response::from_parts(head, body))
    }
}

impl Exchange for Agent {
    fn send(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Response<Bytes>, Error>> {
        Box::pin(async move {
            let (origin, request) = outgoing(request)?;
            let mut tries = Tries::until(deadline);
            loop {
                let outcome = self.exchange(&origin, &request, deadline).await;
                let failure = match &outcome {
                    Ok(answer) if matches!(answer.status().as_u16(), 502..=504) => {
                        let wait = retry_after(answer.headers(), self.clock.now());
                        Failure::unavailable(Kind::Failing(wait), "")
                    }
                    Ok(_) => return outcome.map_err(Error::from),
                    Err(failure) => failure.clone(),
                };
                if tries.after(failure).await.is_err() {
                    return outcome.map_err(Error::from);
                }
            }
        })
    }
}

/// A request of authentication as the pool takes it, and where it goes.
fn outgoing(request: Request<Bytes>) -> Result<(Origin, Outgoing), Error> {
    let no_url = || Error::invalid("a token realm is no URL that can be asked");
    let (head, body) = request.into_parts();
    let url: Url = head.uri.to_string().parse().map_err(|_| no_url())?;
    let origin = Origin::of(&url).ok_or_else(no_url)?;
    let mut headers = head.headers;
    for (name, value) in &common_headers() {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    let request = Outgoing {
        method: head.method,
        url,
        headers,
        body,
        reader: Reader::Us,
    };
    Ok((origin, request))
}

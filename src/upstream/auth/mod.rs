//! How an upstream comes to believe us: challenges, tokens, credentials.
//!
//! Owns everything that leads to an `Authorization` header for one URL of an upstream, and the rule of who may see the
//! credentials. Never sends a request for content, never follows a redirect, and puts no secret into a log, an error or
//! a `Debug`. Sees the network through [`Exchange`] alone; imports `oci` values, `config` values and `telemetry`.
//!
//! The way of a pull: [`Authenticator::authorization`] gives what is known to be wanted; a refusal goes to
//! [`Authenticator::challenged`], which gives one header to try again with; a second one to [`Authenticator::denied`].
//! What a redirect leads to is met as a guest, with no more than it gives to anybody.

mod basic;
mod bearer;
mod challenge;
mod credentials;
mod guest;
mod learned;
mod logins;
mod probe;
mod realm;
mod refusal;
mod scope;
mod token;
mod tokens;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use self::challenge::Challenge;
use self::credentials::Credentials;
pub(super) use self::credentials::Fingerprint;
use self::learned::Learned;
use self::logins::Logins;
pub use self::probe::Access;
use self::realm::Realm;
use self::scope::Scopes;
use self::token::Plan;
use self::tokens::{Refused, Tokens};
use super::Error;
use super::exchange::{Exchange, RefusedAnswer};
use super::said::said;
use crate::config::{Upstream, UpstreamUrl};
use crate::oci::RepoName;
use crate::telemetry::Metrics;

/// Logs in to one URL of an upstream.
pub(super) struct Authenticator {
    upstream: Arc<Upstream>,
    /// The URL's `/v2/`: what realms are read from, and where a missing challenge is asked for.
    base: Url,
    credentials: Credentials,
    exchange: Arc<dyn Exchange>,
    metrics: Arc<Metrics>,
    learned: Learned,
    tokens: Tokens,
    logins: Logins,
}

impl Authenticator {
    /// For `url`, which is one of `upstream`'s and has its API at `base`.
    pub(super) fn new(
        upstream: &Arc<Upstream>,
        url: &UpstreamUrl,
        base: Url,
        exchange: Arc<dyn Exchange>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            base,
            credentials: Credentials::new(&upstream.name, &url.url, url.credentials.as_ref()),
            exchange,
            metrics,
            learned: Learned::new(),
            tokens: Tokens::new(),
            logins: Logins::default(),
        }
    }

    /// Whose pulls these are: our login's, or nobody's in particular.
    pub(super) async fn puller(&self, deadline: Instant) -> Option<Fingerprint> {
        let login = self.credentials.login(deadline).await.ok()??;
        Some(*login.fingerprint())
    }

    /// What to send at once to pull from `repository`; `None`: ask without, and see what is wanted.
    ///
    /// A token that has expired is renewed. Where that is refused, what was learned is forgotten and the registry is
    /// asked anew what it wants.
    pub(super) async fn authorization(
        &self,
        repository: &RepoName,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Error> {
        if let Some(plan) = self.learned.plan(repository) {
            let renewed = self.token(&plan, repository, None, deadline).await;
            return match renewed {
                Ok(header) => Ok(Some(header)),
                Err(error) => {
                    self.learned.forget(repository);
                    match error {
                        Error::Denied { .. } | Error::Refused { .. } | Error::Invalid { .. } => {
                            Ok(None)
                        }
                        other => Err(other),
                    }
                }
            };
        }
        if !self.learned.is_basic() {
            return Ok(None);
        }
        match self.credentials.login(deadline).await? {
            Some(login) => self.basic_of(&login, repository).map(Some),
            None => Ok(None),
        }
    }

    /// What to try again with, once, after `answer` refused a request for `repository` that carried `sent`.
    ///
    /// `None`: the answer is not about authentication, and stands. After a `401` there is a header or an error.
    pub(super) async fn challenged(
        &self,
        answer: &RefusedAnswer<'_>,
        repository: &RepoName,
        sent: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Error> {
        let offered = challenge::strongest(answer.headers);
        if answer.status == StatusCode::UNAUTHORIZED {
            let challenge = match offered {
                Some(challenge) => challenge,
                None => self.missing_challenge(sent, deadline).await?,
            };
            let header = self.answer(challenge, repository, sent, deadline).await?;
            return Ok(Some(header));
        }
        let Some(sent) = sent else {
            return Ok(None);
        };
        if answer.body.is_empty() && answer.status == StatusCode::FORBIDDEN && !is_bearer(sent) {
            // A `HEAD` does not say why; if the login has changed meanwhile, that is reason enough.
            return self.other_basic(repository, sent, deadline).await;
        }
        let wants_more = matches!(&offered, Some(Challenge::Bearer(bearer)) if bearer.wants_more);
        if !wants_more && !refusal::says_expired(answer.body) {
            return Ok(None);
        }
        let header = match offered {
            Some(challenge) => {
                let header = self.answer(challenge, repository, Some(sent), deadline);
                header.await?
            }
            None if is_bearer(sent) => match self.learned.plan(repository) {
                Some(plan) => {
                    let refused = Some(Refused {
                        header: sent,
                        reach: false,
                    });
                    self.token(&plan, repository, refused, deadline).await?
                }
                None => return Ok(None),
            },
            None => self.basic(repository, Some(sent), deadline).await?,
        };
        Ok(Some(header))
    }

    /// Notes that a request for `repository` that carried `sent` was answered with content.
    pub(super) fn accepted(&self, repository: &RepoName, sent: Option<&HeaderValue>) {
        if let Some(sent) = sent.filter(|sent| !is_bearer(sent)) {
            self.basic_accepted(repository, sent);
        }
    }

    /// The error for `answer` (`401`, or a `403` that denies) after everything was tried; `sent` is what was refused.
    pub(super) fn denied(
        &self,
        answer: &RefusedAnswer<'_>,
        repository: &RepoName,
        sent: Option<&HeaderValue>,
    ) -> Error {
        let status = answer.status.as_u16();
        let name = &self.upstream.name;
        match sent {
            Some(sent) if !is_bearer(sent) => {
                if answer.status == StatusCode::UNAUTHORIZED {
                    self.basic_refused(repository, sent);
                    return self.login_refused(answer.status);
                }
                Error::Denied {
                    message: format!(
                        "upstream {name} does not let our login pull {repository} ({status})"
                    ),
                    ours: false,
                }
            }
            _ => {
                let said = said(answer.body, sent);
                let words = said
                    .message()
                    .map_or_else(String::new, |words| format!(": {words}"));
                Error::Denied {
                    message: format!(
                        "upstream {name} denies {repository} ({status}){words}: it does not exist there, or may not \
                         be pulled with what credentials are set"
                    ),
                    ours: false,
                }
            }
        }
    }

    /// The header that `challenge` asks for. The header `sent` was refused and is not it.
    async fn answer(
        &self,
        challenge: Challenge,
        repository: &RepoName,
        sent: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<HeaderValue, Error> {
        let bearer = match challenge {
            Challenge::Basic => return self.basic(repository, sent, deadline).await,
            Challenge::Bearer(bearer) => bearer,
        };
        let plan = Plan {
            realm: Realm::resolve(&bearer.realm, &self.base, &self.upstream)?,
            service: bearer.service.clone().filter(|name| !name.is_empty()),
            scopes: Scopes::wanted(bearer.scope.as_deref(), repository),
        };
        let refused = sent.map(|header| Refused {
            header,
            reach: bearer.wants_more,
        });
        let header = self.token(&plan, repository, refused, deadline).await?;
        self.learned.wants_token(repository, plan, bearer);
        Ok(header)
    }

    /// The challenge behind a `401` that has none (gcr.io): as learned before, else as `/v2/` says.
    async fn missing_challenge(
        &self,
        sent: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Challenge, Error> {
        // What was learned has just been tried, if something was sent.
        if sent.is_none()
            && let Some(bearer) = self.learned.bearer()
        {
            return Ok(Challenge::Bearer(bearer));
        }
        let answer = self.ask_base(None, deadline).await?;
        let challenge = (answer.status() == StatusCode::UNAUTHORIZED)
            .then(|| challenge::strongest(answer.headers()))
            .flatten();
        challenge.ok_or_else(|| self.no_challenge())
    }

    /// The answer for `/v2/`.
    async fn ask_base(
        &self,
        authorization: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Error> {
        let mut request = Request::get(self.base.as_str()).header(ACCEPT, "application/json");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Bytes::new())
            .map_err(|_| Error::invalid("the upstream's url is no address that can be asked"))?;
        self.exchange.send(request, deadline).await
    }

    fn no_challenge(&self) -> Error {
        Error::Denied {
            message: format!(
                "upstream {} answers 401 and does not say how to log in",
                self.upstream.name
            ),
            ours: false,
        }
    }
}

fn is_bearer(header: &HeaderValue) -> bool {
    header
        .as_bytes()
        .get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

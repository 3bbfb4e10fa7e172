//! Whether a registry lets us in, found out without asking for content.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::challenge::{self, Bearer, Challenge};
use super::credentials::Login;
use super::realm::Realm;
use super::scope::Scopes;
use super::token::Plan;
use super::{Authenticator, realm};
use crate::upstream::Error;

/// How a registry lets us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It wants no login.
    Open,
    /// It gives tokens to anybody, and we have no login.
    Anonymous,
    /// It takes our login.
    Accepted,
}

impl Authenticator {
    /// Asks for `/v2/`, and for what it wants with our login where there is one.
    pub(in crate::upstream) async fn probe(&self, deadline: Instant) -> Result<Access, Error> {
        let login = self.credentials.login(deadline).await?;
        let answer = self.ask_base(None, deadline).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.judge(&answer).map(|()| Access::Open);
        }
        match challenge::strongest(answer.headers()) {
            Some(Challenge::Basic) => self.probe_basic(login.as_deref(), deadline).await,
            Some(Challenge::Bearer(bearer)) => {
                self.probe_bearer(bearer, login.as_deref(), deadline).await
            }
            None => Err(self.no_challenge()),
        }
    }

    async fn probe_basic(&self, login: Option<&Login>, deadline: Instant) -> Result<Access, Error> {
        let header = login.and_then(Login::basic).ok_or_else(|| Error::Denied {
            message: format!(
                "upstream {} wants user and password, and none are set: give its url credentials",
                self.upstream.name
            ),
            ours: false,
        })?;
        let answer = self.ask_base(Some(&header), deadline).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            return Err(self.login_refused(answer.status()));
        }
        self.judge(&answer).map(|()| Access::Accepted)
    }

    async fn probe_bearer(
        &self,
        bearer: Bearer,
        login: Option<&Login>,
        deadline: Instant,
    ) -> Result<Access, Error> {
        let plan = Plan {
            realm: Realm::resolve(&bearer.realm, &self.base, &self.upstream)?,
            service: bearer.service.filter(|name| !name.is_empty()),
            scopes: Scopes::none(),
        };
        if login.is_some() && !plan.realm.trusted {
            return Err(plan.realm.foreign(&self.upstream));
        }
        match (self.exchange_token(&plan, login, deadline).await, login) {
            (Ok(_), Some(_)) => Ok(Access::Accepted),
            // Without a repository to name, some give nobody a token; that they answer is what was to be seen.
            (Ok(_) | Err(Error::Denied { .. } | Error::Invalid { .. }), None) => {
                Ok(Access::Anonymous)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Whether an answer for `/v2/` is a registry's.
    fn judge(&self, answer: &Response<Bytes>) -> Result<(), Error> {
        let (status, place) = (answer.status(), realm::place(&self.base));
        let message = format!("{place} answers {}", status.as_u16());
        let is_page = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        match status.as_u16() {
            200..=299 if is_page => Err(Error::invalid(format!(
                "{place} answers with a web page: a proxy or a portal is in the way, or the url is not a registry's"
            ))),
            200..=399 => Ok(()),
            403 => Err(Error::Denied {
                message: format!(
                    "{message}: it refuses this machine, or a firewall before it does"
                ),
                ours: false,
            }),
            429 => Err(Error::RateLimited {
                retry_after: None,
                message: format!(
                    "{message}: it limits our rate; wait, or give its url credentials"
                ),
            }),
            500..=599 => Err(Error::unavailable(message)),
            _ => Err(Error::invalid(format!(
                "{message}: that is not a registry's answer; see whether its url is right"
            ))),
        }
    }
}

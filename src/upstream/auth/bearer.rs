//! Registries that want a token: which login gets it, and from whom.

use http::HeaderValue;
use tokio::time::Instant;

use super::credentials::Login;
use super::logins::{Refusal, Shown};
use super::token::{Plan, Token};
use super::tokens::{NoToken, Refused};
use super::{Authenticator, realm, tokens};
use crate::config::Upstream;
use crate::oci::RepoName;
use crate::upstream::Error;

impl Authenticator {
    /// A token for `plan` that is not the `refused` one, with our login where the realm may see it.
    pub(super) async fn token(
        &self,
        plan: &Plan,
        repository: &RepoName,
        refused: Option<Refused<'_>>,
        deadline: Instant,
    ) -> Result<HeaderValue, Error> {
        let login = self.credentials.login(deadline).await?;
        if login.is_some() && !plan.realm.trusted {
            return Err(plan.realm.foreign(&self.upstream));
        }
        let first = self.token_for(plan, login.as_deref(), refused, deadline);
        let mut outcome = first.await;
        if let (
            Err(NoToken::Failed(Error::Denied { ours: true, .. }) | NoToken::Resting(_)),
            Some(used),
        ) = (&outcome, &login)
        {
            // A helper's password may have expired, a file may have changed this second.
            let other = self.credentials.instead_of(used.fingerprint(), deadline);
            if let Some(other) = other.await? {
                let again = self.token_for(plan, Some(&other), refused, deadline);
                outcome = again.await;
            }
        }
        outcome.map_err(|none| no_token(none, &self.upstream, repository))
    }

    /// A token for `plan` and `login` from what is in hand, or else from the realm.
    pub(super) async fn token_for(
        &self,
        plan: &Plan,
        login: Option<&Login>,
        refused: Option<Refused<'_>>,
        deadline: Instant,
    ) -> Result<HeaderValue, NoToken> {
        let key = tokens::Key::new(plan, login);
        let ask = self.ask(plan, login, deadline);
        self.tokens.get(key, refused, deadline, ask).await
    }

    /// Asks the realm for a token, unless it has refused the login too often.
    async fn ask(
        &self,
        plan: &Plan,
        login: Option<&Login>,
        deadline: Instant,
    ) -> Result<Token, NoToken> {
        let service = realm::host_port(&plan.realm.url);
        let shown =
            login.map(|login| Shown::new(service, plan.scopes.joined(), login.fingerprint()));
        if let Some(Err(rest)) = shown.as_ref().map(|shown| self.logins.admit(shown)) {
            return Err(NoToken::Resting(self.login_rests(rest)));
        }
        let outcome = self.exchange_token(plan, login, deadline).await;
        let label = outcome.as_ref().map_or_else(Error::reason, |_| "ok");
        let upstream = self.upstream.name.as_str();
        self.metrics.upstream.token_exchange(upstream, label);
        match (&outcome, &shown) {
            (Ok(_), Some(shown)) => self.login_accepted(shown),
            (Err(Error::Denied { ours, .. }), Some(shown)) => {
                let refusal = if *ours {
                    Refusal::Unknown
                } else {
                    Refusal::Forbidden
                };
                self.login_failed(shown, refusal);
            }
            _ => {}
        }
        outcome.map_err(NoToken::Failed)
    }

    /// Asks the realm for a token, whatever it said before.
    pub(super) async fn exchange_token(
        &self,
        plan: &Plan,
        login: Option<&Login>,
        deadline: Instant,
    ) -> Result<Token, Error> {
        let asked = Instant::now();
        let answer = self.exchange.send(plan.request(login)?, deadline).await?;
        plan.read(&answer, asked, login.is_some(), &self.upstream)
    }
}

/// Why there is no token for `repository`, as an error.
pub(super) fn no_token(none: NoToken, upstream: &Upstream, repository: &RepoName) -> Error {
    match none {
        NoToken::Failed(error) | NoToken::Resting(error) => error,
        NoToken::JustRefused => Error::Denied {
            message: format!(
                "upstream {} refuses the token that it gave for {repository}: it does not exist there, or may not be \
                 pulled with what credentials are set",
                upstream.name
            ),
            ours: false,
        },
    }
}

//! Registries that want user and password with every request.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Authenticator;
use super::credentials::{Fingerprint, Login};
use super::logins::{Refusal, Rest, Shown};
use crate::oci::RepoName;
use crate::upstream::Error;

impl Authenticator {
    /// The login as `Basic`; another one than was `sent`, if one can be had.
    pub(super) async fn basic(
        &self,
        repository: &RepoName,
        sent: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<HeaderValue, Error> {
        let Some(login) = self.credentials.login(deadline).await? else {
            return Err(Error::Denied {
                message: format!(
                    "upstream {} wants a login, and none is set: give its url credentials",
                    self.upstream.name
                ),
                ours: false,
            });
        };
        let header = if let Some(sent) = sent {
            let other = self.other_basic(repository, sent, deadline).await?;
            other.ok_or_else(|| {
                self.basic_refused(repository, sent);
                self.login_refused(StatusCode::UNAUTHORIZED)
            })?
        } else {
            self.basic_of(&login, repository)?
        };
        self.learned.wants_basic(repository);
        Ok(header)
    }

    /// The login as `Basic` where it is another one by now than was `sent`.
    pub(super) async fn other_basic(
        &self,
        repository: &RepoName,
        sent: &HeaderValue,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Error> {
        let Some(mut login) = self.credentials.login(deadline).await? else {
            return Ok(None);
        };
        if login.basic().as_ref() == Some(sent) {
            let other = self.credentials.instead_of(login.fingerprint(), deadline);
            let Some(other) = other.await? else {
                return Ok(None);
            };
            login = other;
        }
        self.basic_of(&login, repository).map(Some)
    }

    /// `login` as `Basic`, unless it was refused a moment ago.
    pub(super) fn basic_of(
        &self,
        login: &Login,
        repository: &RepoName,
    ) -> Result<HeaderValue, Error> {
        let header = login.basic().ok_or_else(|| Error::Denied {
            message: format!(
                "upstream {} wants user and password, and its credentials are an identity token: set a password",
                self.upstream.name
            ),
            ours: true,
        })?;
        self.logins
            .admit(&shown(repository, &header))
            .map_err(|rest| self.login_rests(rest))?;
        Ok(header)
    }

    /// Notes that the `Basic` header `sent` was refused for `repository`.
    pub(super) fn basic_refused(&self, repository: &RepoName, sent: &HeaderValue) {
        self.login_failed(&shown(repository, sent), Refusal::Unclear);
    }

    /// Notes that the `Basic` header `sent` was good enough for `repository`.
    pub(super) fn basic_accepted(&self, repository: &RepoName, sent: &HeaderValue) {
        self.login_accepted(&shown(repository, sent));
    }

    /// Notes a refusal of our login.
    pub(super) fn login_failed(&self, shown: &Shown, refusal: Refusal) {
        let upstream = &self.upstream.name;
        match self.logins.refused(shown, refusal) {
            Some(Rest::Everywhere(rest)) => tracing::warn!(
                %upstream, for_s = rest.as_secs(),
                "our login is refused, it is not tried again for a while"
            ),
            Some(Rest::Here(rest)) => tracing::warn!(
                %upstream, place = shown.place(), for_s = rest.as_secs(),
                "our login is refused for this, it is not tried there again for a while"
            ),
            None => {}
        }
    }

    /// Notes that our login was accepted.
    pub(super) fn login_accepted(&self, shown: &Shown) {
        if self.logins.accepted(shown) {
            tracing::info!(upstream = %self.upstream.name, "our login is accepted again");
        }
    }

    /// The error for a login that was refused and is not tried now.
    pub(super) fn login_rests(&self, rest: Duration) -> Error {
        Error::Denied {
            message: format!(
                "upstream {} has refused our login, so it is not tried for {} s: correct its credentials",
                self.upstream.name,
                rest.as_secs().max(1)
            ),
            ours: true,
        }
    }

    /// The error for a login that the registry does not know.
    pub(super) fn login_refused(&self, status: StatusCode) -> Error {
        Error::Denied {
            message: format!(
                "upstream {} refuses our login ({}): correct its credentials",
                self.upstream.name,
                status.as_u16()
            ),
            ours: true,
        }
    }
}

/// The `Basic` login in `header` as it is shown to the registry itself.
fn shown(repository: &RepoName, header: &HeaderValue) -> Shown {
    Shown::new("", repository.as_str(), &Fingerprint::of_header(header))
}

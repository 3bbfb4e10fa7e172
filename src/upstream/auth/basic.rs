//! Registries that want user and password with every request.

use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::credentials::{Fingerprint, Login};
use super::{Authenticator, logins};
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
        match self.logins.resting(&basic_key(repository, &header)) {
            Some(_) => Err(self.login_refused(StatusCode::UNAUTHORIZED)),
            None => Ok(header),
        }
    }

    /// Notes that the `Basic` header `sent` was refused for `repository`.
    pub(super) fn basic_refused(&self, repository: &RepoName, sent: &HeaderValue) {
        self.logins.refused(basic_key(repository, sent), 0);
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

/// Where the rest of a refused `Basic` login is kept: per repository, since some registries answer a forbidden one with
/// `401`, and then the others must not rest with it.
fn basic_key(repository: &RepoName, header: &HeaderValue) -> logins::Key {
    logins::Key::new(repository.as_str(), &Fingerprint::of_header(header))
}

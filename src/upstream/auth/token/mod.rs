//! One token exchange: how it is asked, and what its answer means (PROTOCOL 3.3, 3.4).

mod answer;

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::credentials::Login;
use super::realm::{self, Realm};
use super::refusal;
use super::scope::Scopes;
use crate::config::Upstream;
use crate::upstream::Error;
use crate::upstream::answer::retry_after;
use crate::upstream::said::said;

/// A token, as the header that shows it.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked sensitive.
    pub(super) header: HeaderValue,
    /// When it is no longer sent, reckoned from when it was asked for: it was not issued before, by our own clock.
    pub(super) expires: Instant,
}

/// Where a token comes from and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Who gives it.
    pub(super) realm: Realm,
    /// For which service.
    pub(super) service: Option<String>,
    /// To do what.
    pub(super) scopes: Scopes,
}

impl Plan {
    /// The request for the token: a `GET`, with `Basic` for a password; a `POST` for an identity token.
    ///
    /// The body of a `POST` holds a secret.
    pub(super) fn request(&self, login: Option<&Login>) -> Result<Request<Bytes>, Error> {
        let request = Request::builder().header(ACCEPT, "application/json");
        let request = if let Some(token) = login.and_then(Login::identity_token) {
            request
                .method(Method::POST)
                .uri(self.realm.url.as_str())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(self.form(token.expose_secret()))
        } else {
            let mut request = request.method(Method::GET).uri(self.question());
            if let Some(basic) = login.and_then(Login::basic) {
                request = request.header(AUTHORIZATION, basic);
            }
            request.body(Bytes::new())
        };
        request.map_err(|_| {
            Error::invalid(format!(
                "{} is no address that a token can be asked from",
                realm::place(&self.realm.url)
            ))
        })
    }

    /// The realm with service and scopes after what its query already holds.
    fn question(&self) -> String {
        let mut url = self.realm.url.clone();
        let has_service = url.query_pairs().any(|(name, _)| name == "service");
        let mut query = url.query_pairs_mut();
        if let Some(service) = &self.service
            && !has_service
        {
            query.append_pair("service", service);
        }
        for scope in self.scopes.iter() {
            query.append_pair("scope", scope);
        }
        drop(query);
        url.into()
    }

    fn form(&self, refresh_token: &str) -> Bytes {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "layby");
        if let Some(service) = &self.service {
            form.append_pair("service", service);
        }
        form.append_pair("scope", &self.scopes.joined())
            .append_pair("refresh_token", refresh_token);
        form.finish().into()
    }

    /// What the answer to [`Plan::request`], sent at `asked`, gives.
    ///
    /// The words of a service that saw our login are never repeated, since they could hold it.
    pub(super) fn read(
        &self,
        answer: &Response<Bytes>,
        asked: Instant,
        with_login: bool,
        upstream: &Upstream,
    ) -> Result<Token, Error> {
        let status = answer.status();
        if status == StatusCode::OK {
            return read_token(answer.body(), asked).ok_or_else(|| {
                Error::invalid(format!(
                    "the token service {} answers without a token",
                    self.service_of(upstream)
                ))
            });
        }
        if status.is_redirection() {
            return Err(self.redirected(answer.headers(), upstream));
        }
        // A login is sent in other ways than a header too, so after one nothing is repeated.
        let said = said(answer.body(), None);
        let words = said.message().filter(|_| !with_login);
        let words = words.map_or_else(String::new, |words| format!(": {words}"));
        let answers = format!(
            "the token service {} answers {}{words}",
            self.service_of(upstream),
            status.as_u16()
        );
        let refuses_login = with_login
            && match status {
                StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST => true,
                // Else a 403 is about the repository.
                StatusCode::FORBIDDEN => refusal::says_expired(answer.body()),
                _ => false,
            };
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => Error::RateLimited {
                retry_after: retry_after(answer.headers(), SystemTime::now()),
                message: answers,
            },
            StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => {
                let hint = match (refuses_login, with_login) {
                    (true, _) => "it refuses our login, correct its credentials",
                    (false, true) => "our login may not pull this repository",
                    (false, false) => {
                        "nobody may pull this repository without a login; to give one, set credentials for the upstream"
                    }
                };
                Error::Denied {
                    message: format!("{answers}: {hint}"),
                    ours: refuses_login,
                }
            }
            StatusCode::REQUEST_TIMEOUT => Error::unavailable(answers),
            _ if status.is_server_error() => Error::unavailable(answers),
            _ => Error::invalid(answers),
        })
    }

    fn service_of(&self, upstream: &Upstream) -> String {
        format!(
            "{} of upstream {}",
            realm::place(&self.realm.url),
            upstream.name
        )
    }

    /// A token service that sends us elsewhere is not followed: the next host would see what this one may.
    fn redirected(&self, headers: &HeaderMap, upstream: &Upstream) -> Error {
        let target = headers
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| self.realm.url.join(location).ok());
        match target {
            Some(url) => Error::refused(
                "token_hosts",
                format!(
                    "the token service {} redirects to {}, and token requests follow no redirect: have the registry name \
                     that address as its realm, and add \"{}\" to token_hosts if it may see the credentials",
                    self.service_of(upstream),
                    realm::place(&url),
                    realm::host_port(&url)
                ),
            ),
            None => Error::invalid(format!(
                "the token service {} redirects to nowhere",
                self.service_of(upstream)
            )),
        }
    }
}

fn read_token(body: &[u8], asked: Instant) -> Option<Token> {
    let (header, lifetime) = answer::read(body)?;
    Some(Token {
        header,
        expires: asked + lifetime,
    })
}

#[cfg(test)]
mod tests;

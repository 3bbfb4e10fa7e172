//! Tokens and passwords as registries ask for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use layby::runtime::Clock;
use parking_lot::Mutex;

use super::answer::Answer;
use super::wire::Head;

/// What a registry wants to see.
#[derive(Debug, Clone)]
pub(crate) enum Protection {
    /// Nothing.
    Open,
    /// A user and a password.
    Basic {
        /// `user:password`.
        login: &'static str,
    },
    /// A token of this office.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// The registry's name there.
        service: String,
        /// Who gives them out.
        office: TokenOffice,
    },
}

/// Gives out tokens and knows them again. Clones are the same office.
#[derive(Debug, Clone)]
pub(crate) struct TokenOffice {
    inner: Arc<Office>,
}

#[derive(Debug)]
struct Office {
    clock: Clock,
    lifetime: Duration,
    /// `user:password` without which no token is given out.
    login: Option<&'static str>,
    given: Mutex<HashMap<String, Token>>,
}

#[derive(Debug)]
struct Token {
    scopes: Vec<String>,
    expires: SystemTime,
}

impl TokenOffice {
    /// Gives tokens that live this long, by this clock, to anyone.
    pub(crate) fn new(clock: &Clock, lifetime: Duration) -> Self {
        Self::with(clock, lifetime, None)
    }

    /// Gives tokens only to who knows `user:password`.
    pub(crate) fn with_login(clock: &Clock, lifetime: Duration, login: &'static str) -> Self {
        Self::with(clock, lifetime, Some(login))
    }

    fn with(clock: &Clock, lifetime: Duration, login: Option<&'static str>) -> Self {
        Self {
            inner: Arc::new(Office {
                clock: clock.clone(),
                lifetime,
                login,
                given: Mutex::default(),
            }),
        }
    }

    /// How many tokens were given out.
    pub(crate) fn given(&self) -> usize {
        self.inner.given.lock().len()
    }

    /// The answer of the token endpoint.
    pub(super) fn exchange(&self, head: &Head) -> Answer {
        let office = &self.inner;
        if office.login.is_some_and(|login| !knows(head, login)) {
            return Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
        }
        if head.query_values("service").is_empty() {
            return Answer::error(StatusCode::BAD_REQUEST, "UNSUPPORTED");
        }
        let scopes = head
            .query_values("scope")
            .iter()
            .flat_map(|scopes| scopes.split(' '))
            .map(str::to_owned)
            .collect();
        let mut given = office.given.lock();
        let text = format!("token-{}-{:016x}", given.len(), fastrand::u64(..));
        let token = Token {
            scopes,
            expires: office.clock.now() + office.lifetime,
        };
        given.insert(text.clone(), token);
        let body = serde_json::json!({ "token": text, "expires_in": office.lifetime.as_secs() });
        Answer::json(StatusCode::OK, body.to_string())
    }

    /// Why a token does not do, in the words of RFC 6750; `None` when it does.
    fn objection(&self, token: &str, scope: &str) -> Option<&'static str> {
        let given = self.inner.given.lock();
        match given.get(token) {
            None => Some("invalid_token"),
            Some(token) if token.expires <= self.inner.clock.now() => Some("invalid_token"),
            Some(token) if token.scopes.iter().any(|given| given == scope) => None,
            Some(_) => Some("insufficient_scope"),
        }
    }
}

impl Protection {
    /// The refusal of this request, if it is refused. `repository` is `None` for `/v2/` itself.
    pub(super) fn refusal(&self, head: &Head, repository: Option<&str>) -> Option<Answer> {
        let refuse = |challenge: String| {
            let refusal = Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
            Some(refusal.header("www-authenticate", challenge))
        };
        match self {
            Self::Open => None,
            Self::Basic { login } if knows(head, login) => None,
            Self::Basic { .. } => refuse(r#"Basic realm="fake registry""#.into()),
            Self::Bearer {
                realm,
                service,
                office,
            } => {
                let challenge = format!(r#"Bearer realm="{realm}",service="{service}""#);
                let Some(repository) = repository else {
                    return match bearer(head) {
                        Some(token) if office.inner.given.lock().contains_key(token) => None,
                        _ => refuse(challenge),
                    };
                };
                let scope = format!("repository:{repository}:pull");
                let challenge = format!(r#"{challenge},scope="{scope}""#);
                match bearer(head).map(|token| office.objection(token, &scope)) {
                    Some(None) => None,
                    None => refuse(challenge),
                    Some(Some(error)) => refuse(format!(r#"{challenge},error="{error}""#)),
                }
            }
        }
    }
}

fn bearer(head: &Head) -> Option<&str> {
    head.header("authorization")?.strip_prefix("Bearer ")
}

fn knows(head: &Head, login: &str) -> bool {
    let expected = format!("Basic {}", STANDARD.encode(login));
    head.header("authorization") == Some(&expected)
}

/// What storage hosts behind signed addresses say to a request that brings credentials as well.
pub(super) fn storage_refusal() -> Answer {
    let body = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>";
    Answer::new(
        StatusCode::BAD_REQUEST,
        "application/xml",
        Bytes::from(body),
    )
}

/// What storage hosts say to a signature that has expired.
pub(super) fn expired() -> Answer {
    let body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    Answer::new(StatusCode::FORBIDDEN, "application/xml", Bytes::from(body))
}

//! What the tests of authentication share: an upstream's configuration and a scripted registry without sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use super::credentials::{Fingerprint, Login};
use crate::config::{
    CredentialSource, ProxyChoice, RepositoryFilter, TagPolicy, Upstream, UpstreamUrl,
};
use crate::upstream::Error;
use crate::upstream::exchange::{BoxFuture, Exchange};

/// An upstream named `r.example` at `url`, without credentials.
pub(super) fn upstream(url: &str) -> Upstream {
    Upstream {
        name: "r.example".parse().unwrap(),
        urls: vec![UpstreamUrl {
            url: Url::parse(url).unwrap(),
            credentials: None,
        }],
        aliases: Vec::new(),
        hosts: Vec::new(),
        prefixes: Vec::new(),
        repositories: RepositoryFilter::new(&["**".to_owned()], &[]).unwrap(),
        tags: TagPolicy {
            ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::MAX,
            stale_if_gone: Duration::MAX,
            stale_if_denied: Duration::MAX,
            negative_ttl: Duration::ZERO,
        },
        token_hosts: Vec::new(),
        ca_file: None,
        client_cert: None,
        proxy: ProxyChoice::Direct,
        send_ns: false,
        parallel: 1,
        allow_private: false,
        library: false,
    }
}

/// User and password.
pub(super) fn password(username: &str, password: &str) -> CredentialSource {
    CredentialSource::Password {
        username: username.to_owned(),
        password: password.into(),
    }
}

/// The fingerprint of some login of this user.
pub(in crate::upstream) fn fingerprint(username: &str) -> Fingerprint {
    *Login::password(username, "hunter2".into()).fingerprint()
}

/// A registry that gives the answers it was told to, in order, and remembers what it was asked.
pub(super) struct Script {
    answers: Mutex<VecDeque<Result<Response<Bytes>, Error>>>,
    asked: Mutex<Vec<Asked>>,
    /// An answer waits for a permit of it.
    pub(super) gate: Semaphore,
}

/// One request as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Method and URI.
    pub(super) line: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

impl Script {
    /// A registry without answers whose gate is open.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::default(),
            asked: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// Answers one more request with this status, these headers, this body.
    pub(super) fn answer(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        let mut answer = Response::builder().status(status);
        for &(name, value) in headers {
            answer = answer.header(name, value);
        }
        let answer = answer.body(Bytes::from(body.to_owned())).unwrap();
        self.answers.lock().push_back(Ok(answer));
    }

    /// Gives one more token.
    pub(super) fn give(&self, token: &str, seconds: u64) {
        let body = format!(r#"{{"token":"{token}","expires_in":{seconds}}}"#);
        self.answer(200, &[], &body);
    }

    /// Fails one more request.
    pub(super) fn fail(&self, error: Error) {
        self.answers.lock().push_back(Err(error));
    }

    /// Lets no answer pass until permits are added to the gate.
    pub(super) fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Every request so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// How many requests so far.
    pub(super) fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Exchange for Script {
    fn send(
        &self,
        request: Request<Bytes>,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<Response<Bytes>, Error>> {
        let authorization = request.headers().get(AUTHORIZATION);
        assert!(authorization.is_none_or(http::HeaderValue::is_sensitive));
        self.asked.lock().push(Asked {
            line: format!("{} {}", request.method(), request.uri()),
            authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
            body: String::from_utf8(request.body().to_vec()).unwrap(),
        });
        let answer = self.answers.lock().pop_front();
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            answer.unwrap_or_else(|| panic!("a request that the script has no answer for"))
        })
    }
}

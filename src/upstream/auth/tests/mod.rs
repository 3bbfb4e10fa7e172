//! Each rule of authentication as one sentence, against a scripted registry and a paused clock.

mod logins;
mod realms;
mod waiting;

use std::time::Duration;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use super::testing::{Asked, Script};
use super::*;
use crate::config::{CredentialSource, HostPort};

const BEARER: &str =
    r#"Bearer realm="https://r.example/token",service="svc",scope="repository:a/b:pull""#;
const ELSEWHERE: &str = r#"Bearer realm="https://auth.other/token",service="svc""#;
const BASIC: &str = r#"Basic realm="r""#;
const EXPIRED: &str =
    r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired."}]}"#;

/// A registry and the one that logs in to it.
struct Bench {
    script: Arc<Script>,
    metrics: Arc<Metrics>,
    auth: Authenticator,
}

impl Bench {
    fn anonymous() -> Self {
        Self::with(None, &[])
    }

    fn jane() -> Self {
        Self::with(Some(testing::password("jane", "hunter2")), &[])
    }

    fn with(credentials: Option<CredentialSource>, token_hosts: &[&str]) -> Self {
        let mut upstream = testing::upstream("https://r.example");
        upstream.urls[0].credentials = credentials;
        upstream.token_hosts = token_hosts
            .iter()
            .map(|&host| HostPort {
                host: host.to_owned(),
                port: None,
            })
            .collect();
        let upstream = Arc::new(upstream);
        let script = Script::new();
        let metrics = Arc::new(Metrics::default());
        let exchange = Arc::clone(&script) as Arc<dyn Exchange>;
        let url = &upstream.urls[0];
        let base = url.url.join("/v2/").unwrap();
        let auth = Authenticator::new(&upstream, url, base, exchange, Arc::clone(&metrics));
        Self {
            script,
            metrics,
            auth,
        }
    }

    /// What is sent at once to pull from `repository`.
    async fn at_once(&self, repository: &str) -> Result<Option<String>, Error> {
        let repository = repository.parse().unwrap();
        let header = self.auth.authorization(&repository, soon()).await?;
        Ok(header.as_ref().map(text))
    }

    /// What is sent after this refusal.
    async fn after(&self, refusal: &Refusal, repository: &str) -> Result<Option<String>, Error> {
        let repository = repository.parse().unwrap();
        let sent = refusal.sent.as_ref();
        let answer = refusal.answer();
        let header = self
            .auth
            .challenged(&answer, &repository, sent, soon())
            .await?;
        assert!(header.as_ref().is_none_or(HeaderValue::is_sensitive));
        Ok(header.as_ref().map(text))
    }

    fn lines(&self) -> Vec<String> {
        self.script.asked().into_iter().map(|a| a.line).collect()
    }

    fn last(&self) -> Asked {
        self.script.asked().last().cloned().expect("a request")
    }
}

/// A refused request.
struct Refusal {
    status: u16,
    headers: HeaderMap,
    body: &'static str,
    sent: Option<HeaderValue>,
}

impl Refusal {
    fn answer(&self) -> RefusedAnswer<'_> {
        RefusedAnswer {
            status: StatusCode::from_u16(self.status).unwrap(),
            headers: &self.headers,
            body: self.body.as_bytes(),
        }
    }

    /// The request carried this.
    fn to(self, sent: &str) -> Self {
        let sent = Some(HeaderValue::from_str(sent).unwrap());
        Self { sent, ..self }
    }
}

/// A `401` with this challenge to a request without `Authorization`.
fn unauthorized(challenge: &str) -> Refusal {
    let mut headers = HeaderMap::new();
    if !challenge.is_empty() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap());
    }
    refused(401, headers, "")
}

fn refused(status: u16, headers: HeaderMap, body: &'static str) -> Refusal {
    Refusal {
        status,
        headers,
        body,
        sent: None,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn text(header: &HeaderValue) -> String {
    header.to_str().unwrap().to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "compared with outcomes")]
fn bearer(token: &str) -> Result<Option<String>, Error> {
    Ok(Some(format!("Bearer {token}")))
}

#[expect(clippy::unnecessary_wraps, reason = "compared with outcomes")]
fn jane() -> Result<Option<String>, Error> {
    Ok(Some("Basic amFuZTpodW50ZXIy".to_owned()))
}

fn is_ours(outcome: &Result<Option<String>, Error>) -> bool {
    match outcome {
        Err(Error::Denied { ours, .. }) => *ours,
        other => panic!("{other:?}"),
    }
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_registry_is_asked_without_authorization_first() {
    let bench = Bench::jane();
    assert_eq!(bench.at_once("a/b").await, Ok(None));
    assert_eq!(bench.script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bearer_challenge_is_answered_with_an_anonymous_token() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    let asked = bench.last();
    assert_eq!(
        asked.line,
        "GET https://r.example/token?service=svc&scope=repository%3Aa%2Fb%3Apull"
    );
    assert_eq!(asked.authorization, None);
    let metrics = bench.metrics.render();
    assert!(
        metrics.contains(r#"token_exchanges_total{upstream="r.example",outcome="ok"} 1"#),
        "{metrics}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_sent_at_once_until_shortly_before_it_expires_and_then_renewed() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    advance(279).await;
    assert_eq!(bench.at_once("a/b").await, bearer("t1"));
    bench.script.give("t2", 300);
    advance(2).await;
    assert_eq!(bench.at_once("a/b").await, bearer("t2"));
    assert_eq!(bench.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_live_two_seconds_are_used_for_most_of_them() {
    let bench = Bench::anonymous();
    bench.script.give("t0", 2);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t0")
    );
    for n in 1..5 {
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(bench.at_once("a/b").await, bearer(&format!("t{}", n - 1)));
        tokio::time::advance(Duration::from_millis(200)).await;
        bench.script.give(&format!("t{n}"), 2);
        assert_eq!(bench.at_once("a/b").await, bearer(&format!("t{n}")));
    }
}

#[tokio::test(start_paused = true)]
async fn each_repository_has_its_own_token() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    assert_eq!(bench.at_once("a/c").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_token_refused_in_mid_life_is_renewed() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    advance(100).await;
    bench.script.give("t2", 300);
    let refusal = unauthorized(BEARER).to("Bearer t1");
    assert_eq!(bench.after(&refusal, "a/b").await, bearer("t2"));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_another_request_has_renewed_is_not_renewed_again() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    advance(100).await;
    bench.script.give("t2", 300);
    let refusal = unauthorized(BEARER).to("Bearer t1");
    assert_eq!(bench.after(&refusal, "a/b").await, bearer("t2"));
    assert_eq!(bench.after(&refusal, "a/b").await, bearer("t2"));
    assert_eq!(bench.script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_does_not_reach_far_enough_is_a_denial() {
    let bench = Bench::jane();
    bench.script.give("t1", 300);
    let first = bench.after(&unauthorized(BEARER), "a/b").await;
    assert_eq!(first, bearer("t1"));
    let challenge = format!(r#"{BEARER},error="insufficient_scope""#);
    let outcome = bench
        .after(&unauthorized(&challenge).to("Bearer t1"), "a/b")
        .await;
    assert!(!is_ours(&outcome), "{outcome:?}");
    assert_eq!(bench.script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_no_longer_good_is_renewed_however_new() {
    let bench = Bench::anonymous();
    bench.script.give("t0", 300);
    let first = bench.after(&unauthorized(BEARER), "a/b").await;
    assert_eq!(first, bearer("t0"));
    let invalid = format!(r#"{BEARER},error="invalid_token""#);
    for (n, refusal) in [
        unauthorized(&invalid),
        unauthorized(BEARER),
        refused(403, HeaderMap::new(), EXPIRED),
    ]
    .into_iter()
    .enumerate()
    {
        let next = format!("t{}", n + 1);
        bench.script.give(&next, 300);
        let refusal = refusal.to(&format!("Bearer t{n}"));
        assert_eq!(bench.after(&refusal, "a/b").await, bearer(&next));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_reach_far_enough_is_followed_by_one_for_the_scope_asked() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    let more = r#"Bearer realm="https://r.example/token",service="svc",scope="repository:official/b:pull",error="insufficient_scope""#;
    for status in [401, 403] {
        let token = format!("more{status}");
        advance(1).await;
        bench.script.give(&token, 300);
        let mut refusal = unauthorized(more).to("Bearer t1");
        refusal.status = status;
        if status == 403 {
            refusal = refusal.to("Bearer more401");
        }
        assert_eq!(bench.after(&refusal, "a/b").await, bearer(&token));
        assert!(
            bench.last().line.ends_with(
                "&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Aofficial%2Fb%3Apull"
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_outside_the_grammar_is_asked_for_as_it_is() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    let challenge = r#"Bearer realm="https://r.example/token/",service="s",scope="aws""#;
    assert_eq!(
        bench.after(&unauthorized(challenge), "a/b").await,
        bearer("t1")
    );
    assert!(bench.last().line.ends_with("?service=s&scope=aws"));
}

#[tokio::test(start_paused = true)]
async fn a_400_or_403_that_says_the_token_expired_renews_it() {
    let bench = Bench::anonymous();
    bench.script.give("t0", 3600);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t0")
    );
    for (n, status) in [400, 403].into_iter().enumerate() {
        advance(100).await;
        bench.script.give(&format!("t{}", n + 1), 3600);
        let refusal = refused(status, HeaderMap::new(), EXPIRED).to(&format!("Bearer t{n}"));
        let renewed = bench.after(&refusal, "a/b").await;
        assert_eq!(renewed, bearer(&format!("t{}", n + 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_renewed_for_the_scope_it_had() {
    let bench = Bench::anonymous();
    let challenge =
        r#"Bearer realm="https://r.example/token",service="",scope="repository:proxy/a/b:pull""#;
    bench.script.give("t0", 3600);
    let first = bench.after(&unauthorized(challenge), "a/b").await;
    assert_eq!(first, bearer("t0"));
    advance(100).await;
    bench.script.give("t1", 3600);
    let refusal = refused(403, HeaderMap::new(), EXPIRED).to("Bearer t0");
    assert_eq!(bench.after(&refusal, "a/b").await, bearer("t1"));
    let question = "GET https://r.example/token?scope=repository%3Aproxy%2Fa%2Fb%3Apull";
    assert_eq!(bench.lines(), [question, question]);
}

#[tokio::test(start_paused = true)]
async fn any_other_400_or_403_stands() {
    let bench = Bench::jane();
    for (refusal, sent) in [
        (refused(403, HeaderMap::new(), "denied"), Some("Bearer t")),
        (refused(400, HeaderMap::new(), ""), Some("Basic x")),
        (refused(403, HeaderMap::new(), EXPIRED), None),
    ] {
        let refusal = match sent {
            Some(sent) => refusal.to(sent),
            None => refusal,
        };
        assert_eq!(bench.after(&refusal, "a/b").await, Ok(None));
    }
    assert_eq!(bench.script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_401_without_a_challenge_leads_to_the_one_of_the_base() {
    let bench = Bench::anonymous();
    bench.script.answer(
        401,
        &[(
            "www-authenticate",
            r#"Bearer realm="https://r.example/token""#,
        )],
        "",
    );
    bench.script.give("t1", 300);
    assert_eq!(bench.after(&unauthorized(""), "a/b").await, bearer("t1"));
    assert_eq!(
        bench.lines(),
        [
            "GET https://r.example/v2/",
            "GET https://r.example/token?scope=repository%3Aa%2Fb%3Apull"
        ]
    );
    bench.script.give("t2", 300);
    assert_eq!(bench.after(&unauthorized(""), "c").await, bearer("t2"));
    assert_eq!(bench.script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_401_without_any_challenge_is_a_denial() {
    let bench = Bench::anonymous();
    bench.script.answer(200, &[("www-authenticate", BASIC)], "");
    assert!(!is_ours(&bench.after(&unauthorized(""), "a/b").await));
}

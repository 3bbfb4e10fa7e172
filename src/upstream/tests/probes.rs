//! What a look at an upstream finds.

use super::fakes::{Answer, Fake, Seen};
use super::*;
use crate::config::CredentialSource;
use crate::upstream::Access;

/// `user:pass`, as `Basic` has it.
const LOGIN: &str = "Basic dXNlcjpwYXNz";

fn world(registry: &Fake, with_login: bool) -> World {
    let mut world = World::new(&[&registry.url()]);
    if with_login {
        world.upstream.urls[0].credentials = Some(CredentialSource::Password {
            username: "user".to_owned(),
            password: "pass".into(),
        });
    }
    world
}

async fn look(world: &World) -> Result<Access, Error> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut probes = world.upstream().probe(deadline).await?;
    assert_eq!(probes.len(), 1);
    probes.remove(0).outcome
}

fn wants(challenge: String) -> Answer {
    Answer::new(401, "{}").with("www-authenticate", challenge)
}

/// A registry that gives tokens to whoever shows the login, or to all.
async fn registry(token: fn(&Seen) -> Answer) -> Fake {
    Fake::plain(move |seen| {
        let host = seen.header("host").unwrap();
        match seen.path() {
            "/token" => token(seen),
            _ => wants(format!(
                r#"Bearer realm="http://{host}/token",service="reg""#
            )),
        }
    })
    .await
}

fn token() -> Answer {
    Answer::ok(r#"{"token":"t0ken"}"#)
}

#[tokio::test]
async fn an_open_registry_is_open_and_is_asked_for_nothing_but_its_base() {
    let registry = Fake::plain(|_| Answer::ok("{}")).await;
    assert_eq!(look(&world(&registry, false)).await, Ok(Access::Open));
    let paths: Vec<_> = registry
        .seen()
        .iter()
        .map(|seen| seen.path().to_owned())
        .collect();
    assert_eq!(paths, ["/v2/"]);
}

#[tokio::test]
async fn a_login_is_accepted_or_refused_and_its_password_is_in_no_message() {
    let judge = |seen: &Seen| match seen.header("authorization") {
        Some(LOGIN) => token(),
        _ => Answer::new(401, "{}"),
    };
    let good = registry(judge).await;
    assert_eq!(look(&world(&good, true)).await, Ok(Access::Accepted));
    let query = good.seen()[1].uri.query().unwrap().to_owned();
    assert_eq!(query, "service=reg");
    let bad = registry(|_| Answer::new(401, "no pass for user:pass")).await;
    let error = look(&world(&bad, true)).await.unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: true, .. }),
        "{error:?}"
    );
    assert!(!error.to_string().contains("pass"), "{error}");
}

#[tokio::test]
async fn without_a_login_the_token_service_need_only_answer() {
    let answers: [fn(&Seen) -> Answer; 3] = [
        |_| token(),
        |_| Answer::new(403, "{}"),
        |_| Answer::ok("{}"),
    ];
    for answer in answers {
        let registry = registry(answer).await;
        assert_eq!(look(&world(&registry, false)).await, Ok(Access::Anonymous));
    }
    let limited = registry(|_| Answer::new(429, "")).await;
    let error = look(&world(&limited, false)).await.unwrap_err();
    assert_eq!(error.reason(), "rate_limited");
}

#[tokio::test]
async fn a_registry_that_wants_user_and_password_is_shown_ours() {
    let registry = Fake::plain(|seen| match seen.header("authorization") {
        Some(LOGIN) => Answer::ok("{}"),
        _ => wants("Basic realm=\"r\"".to_owned()),
    })
    .await;
    assert_eq!(look(&world(&registry, true)).await, Ok(Access::Accepted));
    let error = look(&world(&registry, false)).await.unwrap_err();
    assert!(error.to_string().contains("credentials"), "{error}");
    let refusing = Fake::plain(|_| wants("Basic realm=\"r\"".to_owned())).await;
    let error = look(&world(&refusing, true)).await.unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: true, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_is_no_registry_is_told_apart() {
    for (status, kind, reason, word) in [
        (200, "text/html; charset=utf-8", "invalid", "web page"),
        (404, "application/json", "invalid", "url is right"),
        (403, "application/json", "denied", "firewall"),
        (429, "application/json", "rate_limited", "rate"),
        (500, "application/json", "unavailable", "500"),
    ] {
        let registry =
            Fake::plain(move |_| Answer::new(status, "{}").with("content-type", kind)).await;
        let error = look(&world(&registry, false)).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let mut nobody = World::new(&["http://127.0.0.1:1"]);
    nobody.upstream.proxy = ProxyChoice::Direct;
    assert_eq!(look(&nobody).await.unwrap_err().reason(), "unavailable");
}

#[tokio::test]
async fn a_login_is_not_shown_to_a_realm_that_is_not_trusted() {
    let thief = Fake::plain(|_| token()).await;
    let realm = thief.url();
    let registry = Fake::plain(move |_| wants(format!("Bearer realm=\"{realm}\""))).await;
    let error = look(&world(&registry, true)).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                key: "token_hosts",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn offline_nothing_is_opened() {
    let registry = Fake::plain(|_| Answer::ok("{}")).await;
    let mut world = world(&registry, false);
    world.config.offline = true;
    assert_eq!(look(&world).await, Err(Error::Offline));
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn the_proxy_in_the_way_is_named_without_its_password() {
    let mut world = World::new(&["http://registry.example"]);
    world.upstream.proxy = ProxyChoice::Via("http://user:secret@127.0.0.1:1".parse().unwrap());
    let deadline = Instant::now() + Duration::from_secs(5);
    let probes = world.upstream().probe(deadline).await.unwrap();
    assert_eq!(probes[0].proxy.as_deref(), Some("http://127.0.0.1:1"));
    assert_eq!(probes[0].url, "http://registry.example/v2/");
    let error = probes[0].outcome.as_ref().unwrap_err().to_string();
    assert!(
        error.contains("proxy") && !error.contains("secret"),
        "{error}"
    );
}

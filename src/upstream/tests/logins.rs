//! Logging in, end to end: what goes where, how often, and what it is when nothing helps.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fakes::{Answer, Authority, Fake, Seen};
use super::*;
use crate::config::CredentialSource;

const TOKEN: &str = "t0ken";

pub(super) fn credentials() -> CredentialSource {
    CredentialSource::Password {
        username: "user".to_owned(),
        password: "pass".into(),
    }
}

/// `user:pass`, as `Basic` has it.
pub(super) const LOGIN: &str = "Basic dXNlcjpwYXNz";

fn challenge(realm: &str) -> Answer {
    let scope = r#"scope="repository:org/app:pull""#;
    Answer::new(
        401,
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    )
    .with(
        "www-authenticate",
        format!(r#"Bearer realm="{realm}",service="reg",{scope}"#),
    )
}

fn is_let_in(seen: &Seen) -> bool {
    seen.header("authorization") == Some(&format!("Bearer {TOKEN}"))
}

/// A registry and its token server in one.
async fn registry_with_tokens() -> Fake {
    Fake::plain(|seen| {
        let host = seen.header("host").unwrap().to_owned();
        match seen.path() {
            "/token" => Answer::ok(format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#)),
            _ if is_let_in(seen) => Answer::ok(CONTENT),
            _ => challenge(&format!("http://{host}/token")),
        }
    })
    .await
}

pub(super) fn paths(registry: &Fake) -> Vec<String> {
    registry
        .seen()
        .iter()
        .map(|seen| seen.path().to_owned())
        .collect()
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_token_that_is_used_again() {
    let registry = registry_with_tokens().await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for _ in 0..3 {
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    }
    let blob = format!("/v2/org/app/blobs/{}", digest());
    assert_eq!(paths(&registry), [&blob, "/token", &blob, &blob, &blob]);
    let token = &registry.seen()[1];
    let query = token.uri.query().unwrap();
    assert!(
        query.contains("service=reg") && query.contains("scope=repository"),
        "{query}"
    );
    assert_eq!(token.header("authorization"), None);
    assert!(token.header("user-agent").unwrap().starts_with("layby/"));
    assert_eq!(token.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn the_login_goes_to_the_realm_and_the_token_to_the_registry() {
    let registry = registry_with_tokens().await;
    let mut world = World::new(&[&registry.url()]);
    world.upstream.urls[0].credentials = Some(credentials());
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    let sent: Vec<_> = registry
        .seen()
        .iter()
        .map(|seen| seen.header("authorization").map(str::to_owned))
        .collect();
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(sent, [None, Some(LOGIN.to_owned()), Some(bearer)]);
}

#[tokio::test]
async fn the_token_stays_behind_at_a_redirect_to_another_origin_and_back() {
    let storage = Fake::plain(|seen| match seen.path() {
        "/back" => Answer::redirect(307, format!("http://{}/final", seen.uri.query().unwrap())),
        _ => Answer::ok(CONTENT),
    })
    .await;
    let target = storage.url();
    let registry = Fake::plain(move |seen| {
        let host = seen.header("host").unwrap().to_owned();
        match seen.path() {
            "/token" => Answer::ok(format!(r#"{{"token":"{TOKEN}"}}"#)),
            "/final" => Answer::ok(CONTENT),
            "/v2/inner" => Answer::redirect(302, format!("{target}/back?{host}")),
            _ if is_let_in(seen) => Answer::redirect(307, "/v2/inner"),
            _ => challenge(&format!("http://{host}/token")),
        }
    })
    .await;
    assert_eq!(
        fetch(&World::new(&[&registry.url()]).upstream())
            .await
            .unwrap(),
        CONTENT
    );
    assert_eq!(storage.seen()[0].header("authorization"), None);
    let seen = registry.seen();
    let of = |path: &str| seen.iter().find(|seen| seen.path() == path).unwrap();
    assert!(is_let_in(of("/v2/inner")), "within the origin it is kept");
    assert_eq!(of("/final").header("authorization"), None);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_registry_no_longer_takes_is_renewed_once() {
    for (status, body) in [
        (401, ""),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired."}]}"#,
        ),
        (
            400,
            r#"{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}"#,
        ),
    ] {
        let good: Arc<AtomicUsize> = Arc::default();
        let now_good = Arc::clone(&good);
        let registry = Fake::plain(move |seen| {
            let host = seen.header("host").unwrap();
            let number = now_good.load(Ordering::SeqCst);
            let taken = format!("Bearer number{number}");
            match (seen.path(), seen.header("authorization")) {
                ("/token", _) => {
                    Answer::ok(format!(r#"{{"token":"number{number}","expires_in":300}}"#))
                }
                (_, Some(sent)) if sent == taken => Answer::ok(CONTENT),
                (_, Some(_)) if status != 401 => Answer::new(status, body),
                _ => challenge(&format!("http://{host}/token")),
            }
        })
        .await;
        let upstream = World::new(&[&registry.url()]).upstream();
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
        good.store(1, Ordering::SeqCst);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT, "{status}");
        let tokens = paths(&registry)
            .iter()
            .filter(|path| *path == "/token")
            .count();
        assert_eq!((tokens, registry.seen().len()), (2, 6), "{status}");
    }
}

#[tokio::test]
async fn a_refusal_in_spite_of_a_token_is_denied_after_one_try() {
    let registry = Fake::plain(|seen| {
        let host = seen.header("host").unwrap();
        match seen.path() {
            "/token" => Answer::ok(format!(r#"{{"token":"{TOKEN}"}}"#)),
            _ => challenge(&format!("http://{host}/token")),
        }
    })
    .await;
    let error = fetch(&World::new(&[&registry.url()]).upstream())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: false, .. }),
        "{error:?}"
    );
    assert!(!error.to_string().contains(TOKEN), "{error}");
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_from_content_that_is() {
    let registry =
        Fake::plain(|_| Answer::new(401, "").with("www-authenticate", "Basic realm=\"r\"")).await;
    let mut world = World::new(&[&registry.url()]);
    world.upstream.urls[0].credentials = Some(credentials());
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: true, .. }),
        "{error:?}"
    );
    assert!(!error.to_string().contains("pass"), "{error}");
    assert_eq!(registry.seen().len(), 2);
}

#[tokio::test]
async fn a_basic_login_is_sent_at_once_when_it_is_known_to_be_wanted() {
    let registry = Fake::plain(|seen| match seen.header("authorization") {
        Some(LOGIN) => Answer::ok(CONTENT),
        _ => Answer::new(401, "").with("www-authenticate", "Basic realm=\"r\""),
    })
    .await;
    let mut world = World::new(&[&registry.url()]);
    world.upstream.urls[0].credentials = Some(credentials());
    let upstream = world.upstream();
    for _ in 0..2 {
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    }
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test]
async fn a_token_is_asked_for_the_repository_as_the_registry_names_it() {
    let registry = Fake::plain(|seen| {
        let host = seen.header("host").unwrap();
        match seen.path() {
            "/token" => Answer::ok(format!(r#"{{"token":"{TOKEN}"}}"#)),
            _ if is_let_in(seen) => Answer::ok(CONTENT),
            _ => Answer::new(401, "").with(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token",service="reg""#),
            ),
        }
    })
    .await;
    let world = World::new(&[&format!("{}/project", registry.url())]);
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    let seen = registry.seen();
    let query = seen
        .iter()
        .find(|seen| seen.path() == "/token")
        .unwrap()
        .uri
        .query()
        .unwrap();
    let scope: String = form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == "scope").then(|| value.into_owned()))
        .unwrap();
    assert_eq!(scope, "repository:project/org/app:pull");
}

#[tokio::test]
async fn a_public_registry_cannot_name_a_realm_at_an_inner_address() {
    for realm in ["http://169.254.169.254/token", "http://inner.example/token"] {
        let registry = Fake::plain(move |_| challenge(realm)).await;
        let world = World::new(&["http://registry.example"]);
        world
            .network
            .host("registry.example", "203.0.113.10", registry.address);
        world.network.black_hole("inner.example", "10.0.0.1");
        let error = fetch(&world.upstream()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    key: "allow_private",
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(world.network.opened().len(), 1);
    }
}

#[tokio::test]
async fn a_token_redirect_is_not_followed() {
    let elsewhere = Fake::plain(|_| Answer::ok(format!(r#"{{"token":"{TOKEN}"}}"#))).await;
    let target = elsewhere.url();
    let registry = Fake::plain(move |seen| match seen.path() {
        "/token" => Answer::redirect(307, target.clone()),
        _ => challenge(&format!("http://{}/token", seen.header("host").unwrap())),
    })
    .await;
    let mut world = World::new(&[&registry.url()]);
    world.upstream.urls[0].credentials = Some(credentials());
    assert!(fetch(&world.upstream()).await.is_err());
    assert!(
        elsewhere
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_token_answer_that_is_too_long_is_refused() {
    let registry = Fake::plain(|seen| match seen.path() {
        "/token" => Answer::ok(vec![b' '; 70_000]),
        _ => challenge(&format!("http://{}/token", seen.header("host").unwrap())),
    })
    .await;
    let error = fetch(&World::new(&[&registry.url()]).upstream())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_realm_that_hangs_is_unavailable_at_the_deadline() {
    let registry = Fake::plain(|seen| match seen.path() {
        "/token" => Answer::never(),
        _ => challenge(&format!("http://{}/token", seen.header("host").unwrap())),
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let began = Instant::now();
    let error = fetch(&upstream).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn an_encrypted_registrys_login_goes_only_where_token_hosts_says() {
    let authority = Authority::new();
    let config = || authority.server("registry.example", &["h2"], None);
    let auth = {
        let config = authority.server("auth.example", &["h2"], None);
        Fake::tls(config, |_| Answer::ok(format!(r#"{{"token":"{TOKEN}"}}"#))).await
    };
    for (allowed, key) in [(false, Some("token_hosts")), (true, None)] {
        let registry = Fake::tls(config(), |seen| {
            if is_let_in(seen) {
                Answer::ok(CONTENT)
            } else {
                challenge("https://auth.example/token")
            }
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, &authority.pem).unwrap();
        let mut world = World::new(&["https://registry.example"]);
        world
            .network
            .host("registry.example", "203.0.113.10", registry.address);
        world
            .network
            .host("auth.example", "203.0.113.20", auth.address);
        world.upstream.ca_file = Some(ca_file);
        world.upstream.urls[0].credentials = Some(credentials());
        if allowed {
            let host = config::HostPort {
                host: "auth.example".to_owned(),
                port: None,
            };
            world.upstream.token_hosts = vec![host];
        }
        match (fetch(&world.upstream()).await, key) {
            (Ok(content), None) => assert_eq!(content, CONTENT),
            (Err(Error::Refused { key, .. }), Some(expected)) => assert_eq!(key, expected),
            (result, _) => panic!("allowed: {allowed}: {result:?}"),
        }
    }
    let logins: Vec<_> = auth
        .seen()
        .iter()
        .map(|seen| seen.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(logins, [Some(LOGIN.to_owned())]);
}

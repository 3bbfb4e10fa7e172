//! Registries that a redirect leads to, and that want a token of their own.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fakes::{Answer, Fake, Seen};
use super::logins::{LOGIN, credentials, paths};
use super::*;

/// A registry that gives out tokens, `guest-0` first, to be used for all but the `refused` first of them.
async fn registry_for_guests(refused: usize) -> Fake {
    let given = AtomicUsize::new(0);
    Fake::plain(move |seen| {
        let host = seen.header("host").unwrap().to_owned();
        if seen.path() == "/token" {
            let number = given.fetch_add(1, Ordering::SeqCst);
            return Answer::ok(format!(r#"{{"token":"guest-{number}","expires_in":300}}"#));
        }
        let number = seen
            .header("authorization")
            .and_then(|header| header.strip_prefix("Bearer guest-")?.parse().ok());
        if number.is_some_and(|number: usize| number >= refused) {
            return Answer::ok(CONTENT);
        }
        let scope = r#"scope="repository:images/app:pull""#;
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="guests",{scope}"#);
        Answer::new(401, "").with("www-authenticate", challenge)
    })
    .await
}

#[tokio::test]
async fn a_registry_that_a_redirect_leads_to_gets_a_token_of_its_own_and_never_our_login() {
    let target = registry_for_guests(0).await;
    let location = format!("{}/v2/images/app/blobs/{}", target.url(), digest());
    let registry = Fake::plain(move |seen| match seen.header("authorization") {
        Some(LOGIN) => Answer::redirect(307, location.clone()),
        _ => Answer::new(401, "").with("www-authenticate", r#"Basic realm="r""#),
    })
    .await;
    let mut world = World::new(&[&registry.url()]);
    world.upstream.urls[0].credentials = Some(credentials());
    let upstream = world.upstream();
    for _ in 0..2 {
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    }
    let blob = format!("/v2/images/app/blobs/{}", digest());
    assert_eq!(paths(&target), [&blob, "/token", &blob, &blob]);
    let seen = target.seen();
    let sent: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("authorization"))
        .collect();
    let guest = Some("Bearer guest-0");
    assert_eq!(sent, [None, None, guest, guest]);
    assert_eq!(
        seen[1].uri.query(),
        Some("service=guests&scope=repository%3Aimages%2Fapp%3Apull")
    );
    let at_home = registry.seen();
    let sent: Vec<_> = at_home
        .iter()
        .map(|seen| seen.header("authorization"))
        .collect();
    assert_eq!(sent, [None, Some(LOGIN), Some(LOGIN)]);
}

#[tokio::test]
async fn a_guests_token_that_is_no_longer_good_is_renewed() {
    let target = registry_for_guests(1).await;
    let location = format!("{}/v2/images/app/blobs/{}", target.url(), digest());
    let registry = Fake::plain(move |_| Answer::redirect(307, location.clone())).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    // The first token is refused in the first round, the second one is taken.
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    let tokens = paths(&target)
        .iter()
        .filter(|path| *path == "/token")
        .count();
    assert_eq!(tokens, 2);
}

#[tokio::test]
async fn a_guest_that_is_never_let_in_is_denied_after_two_rounds() {
    let target = registry_for_guests(usize::MAX).await;
    let location = format!("{}/v2/images/app/blobs/{}", target.url(), digest());
    let registry = Fake::plain(move |_| Answer::redirect(307, location.clone())).await;
    let error = fetch(&World::new(&[&registry.url()]).upstream())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: false, .. }),
        "{error:?}"
    );
    assert!(!error.to_string().contains("guest"), "{error}");
    assert_eq!(registry.seen().len(), 2);
    assert!(target.seen().len() <= 6);
}

#[tokio::test]
async fn a_registry_that_a_redirect_leads_to_gets_no_token_of_the_upstreams_own() {
    let target = Fake::plain(|_| {
        let challenge = r#"Bearer realm="http://registry.example/token""#;
        Answer::new(401, "").with("www-authenticate", challenge)
    })
    .await;
    let registry = Fake::plain(|seen| match seen.path() {
        "/token" => Answer::ok(r#"{"token":"ours","expires_in":300}"#),
        _ => Answer::redirect(307, "http://other.example/v2/a/blobs/b"),
    })
    .await;
    let world = World::new(&["http://registry.example"]);
    let network = &world.network;
    network.host("registry.example", "10.0.0.1", registry.address);
    network.host("other.example", "203.0.113.20", target.address);
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: false, .. }),
        "{error:?}"
    );
    assert!(registry.seen().iter().all(|seen| seen.path() != "/token"));
    let shown = |seen: &Seen| seen.header("authorization").is_some();
    assert!(!target.seen().iter().any(shown));
}

#[tokio::test]
async fn the_realm_of_a_registry_that_a_redirect_leads_to_is_held_to_our_rules() {
    for realm in ["http://10.0.0.1/token", "ftp://203.0.113.20/token"] {
        let challenge = format!(r#"Bearer realm="{realm}""#);
        let target =
            Fake::plain(move |_| Answer::new(401, "").with("www-authenticate", challenge.clone()))
                .await;
        let registry =
            Fake::plain(|_| Answer::redirect(307, "http://other.example/v2/a/blobs/b")).await;
        let world = World::new(&["http://registry.example"]);
        let network = &world.network;
        network.host("registry.example", "203.0.113.10", registry.address);
        network.host("other.example", "203.0.113.20", target.address);
        network.host("10.0.0.1", "10.0.0.1", target.address);
        let error = fetch(&world.upstream()).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert!(target.seen().iter().all(|seen| seen.path() != "/token"));
    }
}

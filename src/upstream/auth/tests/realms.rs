//! Who may see the credentials, and that nothing shows them.

use proptest::prelude::*;

use super::*;

#[tokio::test(start_paused = true)]
async fn the_login_goes_to_a_realm_on_the_upstreams_own_host() {
    let bench = Bench::jane();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    assert_eq!(
        bench.last().authorization.as_deref(),
        Some("Basic amFuZTpodW50ZXIy")
    );
}

#[tokio::test(start_paused = true)]
async fn the_login_goes_to_a_realm_of_token_hosts() {
    let bench = Bench::with(Some(testing::password("jane", "hunter2")), &["auth.other"]);
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(ELSEWHERE), "a/b").await,
        bearer("t1")
    );
    assert!(bench.last().authorization.is_some());
}

#[tokio::test(start_paused = true)]
async fn with_a_login_a_foreign_realm_is_not_asked_at_all() {
    let bench = Bench::jane();
    match bench.after(&unauthorized(ELSEWHERE), "a/b").await {
        Err(Error::Refused { key, message }) => {
            assert_eq!(key, "token_hosts");
            assert!(message.contains("\"auth.other\""), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_login_a_foreign_realm_is_asked_anonymously() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(ELSEWHERE), "a/b").await,
        bearer("t1")
    );
    assert_eq!(bench.last().authorization, None);
}

#[tokio::test(start_paused = true)]
async fn a_realm_in_the_clear_is_not_asked() {
    let bench = Bench::anonymous();
    let challenge = r#"Bearer realm="http://r.example/token""#;
    let outcome = bench.after(&unauthorized(challenge), "a/b").await;
    assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
    assert_eq!(bench.script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_redirecting_token_service_is_not_followed() {
    let bench = Bench::jane();
    let location = [("location", "https://evil.example/token")];
    bench.script.answer(307, &location, "");
    match bench.after(&unauthorized(BEARER), "a/b").await {
        Err(Error::Refused { key, message }) => {
            assert_eq!(key, "token_hosts");
            assert!(message.contains("evil.example"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_read_are_an_error_and_never_an_anonymous_request() {
    let path = "/nonexistent/password".into();
    let username = "jane".to_owned();
    let bench = Bench::with(Some(CredentialSource::PasswordFile { username, path }), &[]);
    assert!(is_ours(&bench.after(&unauthorized(BEARER), "a/b").await));
    assert_eq!(bench.script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_error_holds_a_secret_even_if_the_registry_repeats_it() {
    let echo = r#"{"errors":[{"message":"hunter2 amFuZTpodW50ZXIy t0ken"}]}"#;
    for status in [200, 302, 400, 401, 403, 404, 429, 500] {
        let bench = Bench::jane();
        bench
            .script
            .answer(status, &[("location", "/x?hunter2")], echo);
        let error = bench.after(&unauthorized(BEARER), "a/b").await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("amFuZ"),
            "{shown}"
        );
    }
    let bench = Bench::jane();
    for sent in ["Bearer t0ken", "Basic amFuZTpodW50ZXIy"] {
        let refusal = refused(401, HeaderMap::new(), echo).to(sent);
        let repository = "a/b".parse().unwrap();
        let error = bench
            .auth
            .denied(&refusal.answer(), &repository, refusal.sent.as_ref());
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("t0ken"),
            "{shown}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn credentials_reach_no_host_but_the_trusted_ones(realm in "(https?:|//|/)?[a-z@:/.\\\\]{0,12}(r\\.example|evil\\.example)?[@:/a-z0-9.?#]{0,12}") {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let bench = Bench::jane();
            bench.script.give("t1", 300);
            let challenge = format!("Bearer realm=\"{}\"", realm.replace('\\', "\\\\"));
            let _ = bench.after(&unauthorized(&challenge), "a/b").await;
            for asked in bench.script.asked() {
                if asked.authorization.is_some() {
                    assert!(
                        asked.line.starts_with("GET https://r.example/"),
                        "{realm} led to {}",
                        asked.line
                    );
                }
            }
        });
    }
}

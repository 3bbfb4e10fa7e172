//! Requests for tokens, and what each answer means.

use std::time::Duration;

use super::*;
use crate::upstream::auth::testing;

fn plan(realm: &str, service: Option<&str>, challenge: Option<&str>) -> Plan {
    let upstream = testing::upstream("https://r.example");
    let base = upstream.urls[0].url.clone();
    Plan {
        realm: Realm::resolve(realm, &base, &upstream).unwrap(),
        service: service.map(str::to_owned),
        scopes: Scopes::wanted(challenge, &"a/b".parse().unwrap()),
    }
}

fn login(username: &str) -> Login {
    Login::password(username, "hunter2".into())
}

fn read(status: u16, headers: &[(&str, &str)], body: &str, login: bool) -> Result<Token, Error> {
    let mut answer = Response::builder().status(status);
    for &(name, value) in headers {
        answer = answer.header(name, value);
    }
    let answer = answer.body(Bytes::from(body.to_owned())).unwrap();
    plan("/t", None, None).read(
        &answer,
        Instant::now(),
        login,
        &testing::upstream("https://r.example"),
    )
}

/// How long the token of this answer is used, in tenths of a second.
fn used_for(expires_in: &str) -> u128 {
    let body = Bytes::from(format!(r#"{{"token":"t"{expires_in}}}"#));
    let asked = Instant::now();
    (read_token(&body, asked).unwrap().expires - asked).as_millis() / 100
}

#[test]
fn the_realms_own_query_is_kept_and_each_scope_gets_its_parameter() {
    let plan = plan(
        "https://r.example/t?account=x%20y",
        Some("a service"),
        Some("repository:other/c:pull"),
    );
    let request = plan.request(None).unwrap();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(
        request.uri().to_string(),
        "https://r.example/t?account=x%20y&service=a+service\
         &scope=repository%3Aa%2Fb%3Apull&scope=repository%3Aother%2Fc%3Apull"
    );
    assert!(request.headers().get(AUTHORIZATION).is_none());
}

#[test]
fn a_password_goes_as_basic_in_a_get() {
    let request = plan("/t", None, None).request(Some(&login("jane")));
    let header = request.unwrap().headers()[AUTHORIZATION].clone();
    assert_eq!(header, "Basic amFuZTpodW50ZXIy");
    assert!(header.is_sensitive());
}

#[test]
fn an_identity_token_goes_in_the_form_of_a_post() {
    let request = plan("/t", Some("s"), None)
        .request(Some(&login("<token>")))
        .unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri().to_string(), "https://r.example/t");
    assert!(request.headers().get(AUTHORIZATION).is_none());
    assert_eq!(
        request.body(),
        "grant_type=refresh_token&client_id=layby&service=s\
         &scope=repository%3Aa%2Fb%3Apull&refresh_token=hunter2"
    );
}

#[test]
fn either_name_of_the_token_is_read() {
    for body in [
        r#"{"token":"abc"}"#,
        r#"{"access_token":"abc"}"#,
        r#"{"token":"","access_token":"abc","issued_at":"x"}"#,
    ] {
        let token = read(200, &[], body, false).unwrap();
        assert_eq!(token.header, "Bearer abc");
        assert!(token.header.is_sensitive());
    }
}

#[test]
fn a_lifetime_is_used_up_to_a_margin_however_short() {
    assert_eq!(used_for(r#","expires_in":2"#), 16);
    assert_eq!(used_for(r#","expires_in":300"#), 2800);
    assert_eq!(used_for(r#","expires_in":"300""#), 2800);
}

#[test]
fn a_lifetime_that_is_missing_or_senseless_is_a_minute() {
    for text in [
        "",
        r#","expires_in":0"#,
        r#","expires_in":-5"#,
        r#","expires_in":null"#,
        r#","expires_in":"soon""#,
    ] {
        assert_eq!(used_for(text), 480, "{text}");
    }
    assert!(used_for(r#","expires_in":1e300"#) <= 864_000);
}

#[test]
fn an_answer_without_a_token_is_invalid() {
    for body in [
        "",
        "<html>",
        "{}",
        r#"{"token":""}"#,
        r#"{"token":"a\nb"}"#,
        r#"{"token":7}"#,
    ] {
        let error = read(200, &[("content-type", "text/html")], body, false).unwrap_err();
        assert_eq!(error.reason(), "invalid", "{body}");
    }
}

#[test]
fn each_refusal_has_its_error() {
    for (status, with_login, reason) in [
        (401, false, "denied"),
        (403, false, "denied"),
        (400, true, "denied"),
        (429, true, "rate_limited"),
        (500, false, "unavailable"),
        (503, true, "unavailable"),
        (404, false, "invalid"),
        (204, false, "invalid"),
    ] {
        let error = read(status, &[], "", with_login).unwrap_err();
        assert_eq!(error.reason(), reason, "{status}");
    }
}

#[test]
fn a_refused_login_is_ours_and_a_missing_or_too_weak_one_is_not() {
    for (status, with_login, expected) in
        [(401, true, true), (401, false, false), (403, true, false)]
    {
        let error = read(status, &[], "", with_login).unwrap_err();
        assert!(
            matches!(error, Error::Denied { ours, .. } if ours == expected),
            "{status} {with_login}"
        );
    }
}

#[test]
fn a_403_that_says_the_login_expired_is_ours() {
    let body = "Your authorization token has expired.";
    let error = read(403, &[], body, true).unwrap_err();
    assert!(matches!(error, Error::Denied { ours: true, .. }));
}

#[test]
fn the_wait_that_a_429_asks_for_is_told() {
    let wait = |value| match read(429, &[("retry-after", value)], "", false) {
        Err(Error::RateLimited { retry_after, .. }) => retry_after,
        other => panic!("{other:?}"),
    };
    assert_eq!(wait("7"), Some(Duration::from_secs(7)));
    assert_eq!(wait("soon"), None);
    // It may ask again, now.
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
    assert!(wait(&date).is_some_and(|d| d <= Duration::from_secs(100)));
}

#[test]
fn a_redirect_is_an_error_that_names_token_hosts_and_hides_the_query() {
    let location = [("location", "https://sso.example:8443/x?secret=1")];
    let error = read(302, &location, "", true).unwrap_err();
    let Error::Refused { message, key } = error else {
        panic!("{error:?}");
    };
    assert_eq!(key, "token_hosts");
    assert!(message.contains("add \"sso.example:8443\""), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn a_service_that_saw_our_login_is_not_quoted() {
    let body = r#"{"errors":[{"message":"no hunter2 here"}]}"#;
    let with = read(401, &[], body, true).unwrap_err().to_string();
    assert!(!with.contains("hunter2"), "{with}");
    let without = read(401, &[], body, false).unwrap_err().to_string();
    assert!(without.contains("hunter2"), "{without}");
}

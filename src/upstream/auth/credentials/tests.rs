//! Sources of credentials, each against real files and a real helper.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn at(url: &str, source: &CredentialSource) -> Credentials {
    let helpers = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/upstream/auth/credentials/testdata"
    );
    Credentials::with_helpers_in(
        &"r.example".parse().unwrap(),
        &Url::parse(url).unwrap(),
        Some(source),
        Some(helpers.into()),
    )
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn pair_of(login: Option<&Arc<Login>>) -> Option<String> {
    let header = login?.basic()?;
    let encoded = header.to_str().ok()?.strip_prefix("Basic ")?.to_owned();
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

async fn pair(credentials: &Credentials) -> Option<String> {
    pair_of(credentials.login(soon()).await.unwrap().as_ref())
}

async fn why(credentials: &Credentials) -> String {
    match credentials.login(soon()).await {
        Err(Error::Denied {
            message,
            ours: true,
        }) => message,
        other => panic!("{other:?}"),
    }
}

/// Moves the clock, which then goes on by itself: paused, it would run ahead of a real helper.
async fn skip(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

fn helper(url: &str) -> Credentials {
    at(url, &CredentialSource::CredentialHelper("fake".to_owned()))
}

#[tokio::test]
async fn a_password_in_the_configuration_is_used_as_it_is() {
    let credentials = at(
        "https://r.example",
        &CredentialSource::Password {
            username: "jane".to_owned(),
            password: "pw\n".into(),
        },
    );
    assert_eq!(pair(&credentials).await, Some("jane:pw\n".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_password_file_loses_its_newline_and_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "one\n").unwrap();
    let credentials = at(
        "https://r.example",
        &CredentialSource::PasswordFile {
            username: "jane".to_owned(),
            path: path.clone(),
        },
    );
    assert_eq!(pair(&credentials).await, Some("jane:one".to_owned()));
    // As a mounted secret is swapped: another file, renamed into place.
    let next = directory.path().join("next");
    std::fs::write(&next, "two\r\n").unwrap();
    std::fs::rename(&next, &path).unwrap();
    assert_eq!(pair(&credentials).await, Some("jane:one".to_owned()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pair(&credentials).await, Some("jane:two".to_owned()));
    std::fs::remove_file(&path).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pair(&credentials).await, Some("jane:two".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_refused_password_is_looked_for_anew_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "old").unwrap();
    let credentials = at(
        "https://r.example",
        &CredentialSource::PasswordFile {
            username: "jane".to_owned(),
            path: path.clone(),
        },
    );
    let old = credentials.login(soon()).await.unwrap().unwrap();
    let same = credentials.instead_of(old.fingerprint(), soon()).await;
    assert!(same.unwrap().is_none());
    std::fs::write(&path, "newer").unwrap();
    let new = credentials.instead_of(old.fingerprint(), soon()).await;
    assert_eq!(
        pair_of(new.unwrap().as_ref()),
        Some("jane:newer".to_owned())
    );
}

#[tokio::test]
async fn a_password_file_that_cannot_be_used_is_named_by_its_key_and_not_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    for path in [
        directory.path().join("missing"),
        directory.path().to_owned(),
        empty,
    ] {
        let shown = path.display().to_string();
        let username = "jane".to_owned();
        let credentials = at(
            "https://r.example",
            &CredentialSource::PasswordFile { username, path },
        );
        let message = why(&credentials).await;
        assert!(message.contains("password_file"), "{message}");
        assert!(!message.contains(&shown), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_docker_config_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, r#"{"auths":{}}"#).unwrap();
    let credentials = at(
        "https://r.example",
        &CredentialSource::DockerConfig(path.clone()),
    );
    assert_eq!(pair(&credentials).await, None);
    std::fs::write(
        &path,
        r#"{"auths":{"r.example":{"username":"a","password":"b"}}}"#,
    )
    .unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pair(&credentials).await, Some("a:b".to_owned()));
}

#[tokio::test]
async fn a_docker_config_leads_to_its_helper_and_falls_back_to_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(
        &path,
        r#"{"credsStore":"fake","auths":{"unknown.example":{"username":"a","password":"b"}}}"#,
    )
    .unwrap();
    let of = |url: &str| at(url, &CredentialSource::DockerConfig(path.clone()));
    let hub = of("https://registry-1.docker.io");
    assert_eq!(pair(&hub).await, Some("hub:pw".to_owned()));
    let unknown = of("https://unknown.example");
    assert_eq!(pair(&unknown).await, Some("a:b".to_owned()));
}

#[tokio::test]
async fn a_helper_is_asked_for_the_host_and_its_answer_is_kept() {
    let credentials = helper("https://good.example/project");
    let first = pair(&credentials).await;
    assert!(first.as_ref().is_some_and(|p| p.starts_with("jane:")));
    assert_eq!(pair(&credentials).await, first);
}

#[tokio::test]
async fn a_helpers_answer_is_asked_for_again_in_time_or_when_it_is_refused() {
    let credentials = helper("https://good.example");
    let first = credentials.login(soon()).await.unwrap().unwrap();
    let at_once = credentials.instead_of(first.fingerprint(), soon()).await;
    assert!(at_once.unwrap().is_none(), "asked twice in one moment");
    skip(Duration::from_secs(6)).await;
    let second = credentials.instead_of(first.fingerprint(), soon()).await;
    let second = second.unwrap().expect("asked again");
    skip(Duration::from_secs(301)).await;
    let third = credentials.login(soon()).await.unwrap().unwrap();
    assert_ne!(second.fingerprint(), third.fingerprint());
}

#[tokio::test]
async fn a_helper_may_know_nothing_or_an_identity_token() {
    assert_eq!(pair(&helper("https://unknown.example")).await, None);
    let login = helper("https://identity.example").login(soon()).await;
    assert!(login.unwrap().unwrap().identity_token().is_some());
}

#[tokio::test]
async fn a_broken_helper_is_reported_without_what_it_printed() {
    for (url, says) in [
        ("https://failing.example", "exit code 3"),
        ("https://garbage.example", "not credentials"),
        ("https://endless.example", "far more"),
    ] {
        let message = why(&helper(url)).await;
        assert!(message.contains(says), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let missing = at(
        "https://good.example",
        &CredentialSource::CredentialHelper("no-such".to_owned()),
    );
    assert!(why(&missing).await.contains("docker-credential-no-such"));
}

#[tokio::test]
async fn a_helpers_name_leads_to_no_other_program() {
    for name in ["../fake", "", "a/b", "fake\0", "fake get"] {
        let credentials = at(
            "https://good.example",
            &CredentialSource::CredentialHelper(name.to_owned()),
        );
        assert!(why(&credentials).await.contains("credential helper"));
    }
}

#[tokio::test]
async fn a_silent_helper_takes_no_longer_than_the_caller_has() {
    let credentials = helper("https://silent.example");
    let deadline = Instant::now() + Duration::from_millis(50);
    assert!(credentials.login(deadline).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_helper_is_given_up_after_ten_seconds() {
    let credentials = helper("https://silent.example");
    let begun = Instant::now();
    assert!(why(&credentials).await.contains("within 10 s"));
    assert!(begun.elapsed() < Duration::from_secs(11));
}

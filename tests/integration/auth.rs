//! Tokens, passwords, redirects: who gets to see what, and what a client is told when nobody does.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::fake::{Content, Fake, Protection, Rule, TokenOffice};
use crate::support::{Identity, KIB, Layby, Reply, Request, Setup, UPSTREAM, blob_path, download};

const REPOSITORY: &str = "org/app";
const LOGIN: &str = "robot:secret-password";

fn small() -> Content {
    Content::random(60, 100 * KIB)
}

/// A registry with one blob, and where Layby finds it.
async fn registry() -> (Fake, String) {
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, &small());
    (fake, blob_path(REPOSITORY, &small()))
}

/// With the user and password of [`LOGIN`].
fn with_login(setup: Setup) -> Setup {
    let (user, password) = LOGIN.split_once(':').expect("a user and a password");
    setup
        .of(UPSTREAM, &format!(r#"username = "{user}""#))
        .of(UPSTREAM, &format!(r#"password = "{password}""#))
}

/// Asks everyone for [`LOGIN`] at `at`, for tokens that live a minute.
fn protect(fake: &Fake, layby: &Layby, at: &Fake) -> TokenOffice {
    let office = TokenOffice::with_login(layby.clock(), Duration::from_secs(60), LOGIN);
    fake.protect_with_tokens(&office, at);
    office
}

/// Fails unless this is an error that tells the operator which key to set, and no secret.
#[track_caller]
fn assert_names(reply: &Reply, key: &str) {
    let text = reply.text();
    assert!(reply.status() >= 400, "{}", reply.head.raw);
    assert!(text.contains(key), "{key} is not in: {text}");
    assert!(!text.contains("secret-password"), "{text}");
}

fn saw_credentials(fake: &Fake) -> bool {
    let all = fake.record().all();
    all.iter()
        .any(|seen| seen.header("authorization").is_some())
}

#[tokio::test]
async fn many_blobs_are_pulled_with_tokens_of_two_seconds_and_a_storage_host_that_takes_none() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    fake.redirect_blobs_to(&storage);
    storage.refuse_authorization();
    let layby = Layby::over(&fake).await;
    let office = TokenOffice::new(layby.clock(), Duration::from_secs(2));
    fake.protect_with_tokens(&office, &fake);
    let blobs: Vec<_> = (0..30)
        .map(|n| Content::random(600 + n, 200 * KIB))
        .collect();
    for blob in &blobs {
        fake.put_blob(REPOSITORY, blob);
    }

    for blob in &blobs[..10] {
        layby.blob(REPOSITORY, blob).await.expect(blob);
        layby.later(Duration::from_secs(3)).await;
    }
    let mut clients = JoinSet::new();
    for blob in &blobs[10..] {
        let (address, path) = (layby.address(), blob_path(REPOSITORY, blob));
        let blob = blob.clone();
        clients.spawn(async move { download(address, path).await.is_whole(blob.digest()) });
    }
    while let Some(is_whole) = clients.join_next().await {
        assert!(is_whole.unwrap());
    }
    assert!(!saw_credentials(&storage));
    let visits = storage.record().all();
    let signatures: HashSet<_> = visits.iter().map(|seen| &seen.query).collect();
    assert_eq!(
        signatures.len(),
        visits.len(),
        "a redirect's target was kept"
    );
    assert!(layby.metric("token_exchanges_total", UPSTREAM).await >= 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_share_one_token() {
    let (fake, _) = registry().await;
    let layby = Layby::over(&fake).await;
    let office = TokenOffice::new(layby.clock(), Duration::from_secs(300));
    fake.protect_with_tokens(&office, &fake);
    let blobs: Vec<_> = (0..20).map(|n| Content::random(650 + n, KIB)).collect();
    let mut clients = JoinSet::new();
    for blob in blobs {
        fake.put_blob(REPOSITORY, &blob);
        let (address, path) = (layby.address(), blob_path(REPOSITORY, &blob));
        clients.spawn(async move { download(address, path).await.is_whole(blob.digest()) });
    }
    while let Some(is_whole) = clients.join_next().await {
        assert!(is_whole.unwrap());
    }
    assert_eq!(office.given(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_with_our_login_and_for_pull_of_one_repository() {
    let (fake, path) = registry().await;
    let layby = with_login(Setup::over(&fake)).start().await;
    protect(&fake, &layby, &fake);
    layby.get(&path).await.expect(200);
    let exchange = &fake.record().of("GET", "/token")[0];
    let query: Vec<_> = form_urlencoded::parse(exchange.query.as_bytes())
        .into_owned()
        .collect();
    let get = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, v)| v.as_str())
    };
    assert_eq!(get("service"), Some(fake.host().as_str()));
    assert_eq!(get("scope"), Some("repository:org/app:pull"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_realm_gets_no_credentials_until_token_hosts_names_it() {
    let (fake, path) = registry().await;
    let elsewhere = Fake::start().await;
    let mut layby = with_login(Setup::over(&fake)).start().await;
    protect(&fake, &layby, &elsewhere);

    assert_names(&layby.get(&path).await, "token_hosts");
    assert!(!saw_credentials(&elsewhere));
    assert!(!saw_credentials(&fake));

    let named = format!(r#"token_hosts = ["{}"]"#, elsewhere.host());
    layby.restart_with(|setup| setup.of(UPSTREAM, &named)).await;
    layby.get(&path).await.expect(200);
    assert!(saw_credentials(&elsewhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_realm_is_asked_anonymously_when_there_are_no_credentials() {
    let (fake, path) = registry().await;
    let elsewhere = Fake::start().await;
    let layby = Layby::over(&fake).await;
    let office = TokenOffice::new(layby.clock(), Duration::from_secs(60));
    fake.protect_with_tokens(&office, &elsewhere);
    layby.get(&path).await.expect(200);
    assert!(!saw_credentials(&elsewhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirecting_token_endpoint_does_not_take_the_credentials_along() {
    let (fake, path) = registry().await;
    let elsewhere = Fake::start().await;
    let layby = with_login(Setup::over(&fake)).start().await;
    let office = protect(&fake, &layby, &fake);
    elsewhere.give_tokens(&office);
    let there = format!(
        "{}/token?service=x&scope=repository:org/app:pull",
        elsewhere.origin()
    );
    fake.script(Rule::path("/token").redirect(307, &there));

    assert_names(&layby.get(&path).await, "token_hosts");
    assert!(!saw_credentials(&elsewhere));
}

/// An upstream on the Internet, as far as Layby can tell: its name is one, and `proxy` leads there.
async fn far_away(proxy: &Fake) -> Layby {
    let setup = Setup::over(proxy)
        .of(UPSTREAM, r#"url = "http://registry.example""#)
        .of(UPSTREAM, &format!(r#"proxy = "{}""#, proxy.origin()));
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_upstream_cannot_send_us_to_this_machine_for_tokens() {
    let (proxy, path) = registry().await;
    let inside = Fake::start().await;
    let mut layby = far_away(&proxy).await;
    let office = TokenOffice::new(layby.clock(), Duration::from_secs(60));
    proxy.protect_with_tokens(&office, &inside);

    assert_names(&layby.get(&path).await, "allow_private");
    assert_eq!(inside.record().connections(), 0);
    assert!(proxy.record().of("GET", "/token").is_empty());

    layby
        .restart_with(|setup| setup.of(UPSTREAM, "allow_private = true"))
        .await;
    // The proxy of our choice is the way to everything; it happens to know the tokens too.
    proxy.give_tokens(&office);
    layby.get(&path).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_upstream_cannot_send_us_to_this_machine_for_blobs() {
    let (proxy, path) = registry().await;
    let inside = Fake::start().await;
    proxy.redirect_blobs_to(&inside);
    let mut layby = far_away(&proxy).await;

    assert_names(&layby.get(&path).await, "allow_private");
    assert_eq!(inside.record().connections(), 0);
    assert!(proxy.record().of("GET", "/storage/").is_empty());

    layby
        .restart_with(|setup| setup.of(UPSTREAM, "allow_private = true"))
        .await;
    let reply = layby.get(&path).await;
    assert!(!reply.text().contains("allow_private"), "{}", reply.text());
    assert!(!proxy.record().of("GET", "/storage/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_send_us_to_a_clouds_metadata_service() {
    let (fake, path) = registry().await;
    let layby = Layby::over(&fake).await;
    let metadata = "http://169.254.169.254/latest/meta-data/";
    fake.script(Rule::path("/blobs/").redirect(307, metadata));
    assert_names(&layby.get(&path).await, "allow_private");
    fake.mend();
    let challenge = format!(r#"Bearer realm="{metadata}",service="x""#);
    let refusal = Rule::path("/v2/").method("*").error(401, "UNAUTHORIZED");
    fake.script(refusal.header("www-authenticate", &challenge));
    let manifest = layby
        .get(&format!("/v2/{REPOSITORY}/manifests/latest"))
        .await;
    assert_names(&manifest, "allow_private");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_leads_from_https_to_http_or_on_for_ever() {
    let identity = Identity::new(&[]);
    let secure = Fake::start_tls(&identity).await;
    let plain = Fake::start().await;
    let scratch = tempfile::tempdir().unwrap();
    identity.write_to(scratch.path());
    let ca = format!(
        "ca_file = {:?}",
        scratch.path().join("cert.pem").display().to_string()
    );
    let layby = Setup::over(&secure).of(UPSTREAM, &ca).start().await;
    let content = small();
    secure.put_blob(REPOSITORY, &content);
    layby.blob(REPOSITORY, &content).await.expect(&content);

    let second = Content::random(61, 10 * KIB);
    secure.put_blob(REPOSITORY, &second);
    secure.redirect_blobs_to(&plain);
    let reply = layby.get(&blob_path(REPOSITORY, &second)).await;
    assert!(reply.status() >= 400, "{}", reply.head.raw);
    assert_eq!(plain.record().connections(), 0);

    let third = Content::random(62, 10 * KIB);
    secure.put_blob(REPOSITORY, &third);
    let path = blob_path(REPOSITORY, &third);
    let itself = format!("{}{path}", secure.origin());
    secure.script(
        Rule::digest(third.digest())
            .method("*")
            .redirect(302, &itself),
    );
    let reply = layby.get(&path).await;
    assert!(reply.status() >= 400, "{}", reply.head.raw);
    assert!(secure.record().gets(third.digest()) <= 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_not_spoken_to() {
    let secure = Fake::start_tls(&Identity::new(&[])).await;
    secure.put_blob(REPOSITORY, &small());
    let layby = Layby::over(&secure).await;
    assert_names(
        &layby.get(&blob_path(REPOSITORY, &small())).await,
        "ca_file",
    );
    assert_eq!(secure.record().all().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_about_itself_goes_to_nobody() {
    let (fake, path) = registry().await;
    let layby = Layby::over(&fake).await;
    let request = Request::get(&path)
        .header("Authorization", "Bearer of-the-client")
        .header("Cookie", "session=of-the-client")
        .header("Proxy-Authorization", "Basic of-the-client")
        .header("X-Forwarded-For", "192.0.2.77")
        .header("Accept-Encoding", "gzip");
    request.send_to(layby.address()).await.expect(200);
    for seen in fake.record().all() {
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-forwarded-for",
        ] {
            assert_eq!(seen.header(name), None, "{seen:?}");
        }
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert!(seen.header("via").is_some());
        assert!(seen.header("user-agent").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_back_to_us_is_an_error_and_not_a_loop() {
    let (fake, path) = registry().await;
    let layby = Layby::over(&fake).await;
    layby.head(&path).await.expect(200);
    let ours = fake.record().all()[0]
        .header("via")
        .expect("a Via")
        .to_owned();
    let before = fake.record().all().len();
    let reply = Request::get(&path)
        .header("Via", &ours)
        .send_to(layby.address())
        .await;
    assert!(reply.status() >= 400, "{}", reply.head.raw);
    assert_eq!(fake.record().all().len(), before);
    // Somebody else's is passed on.
    let request = Request::get(&path).header("Via", "1.1 elsewhere");
    request.send_to(layby.address()).await.expect(200);
    let last = fake.record().of("GET", "/blobs/").pop().expect("a request");
    assert!(
        last.header("via")
            .is_some_and(|via| via.contains("elsewhere"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_is_read_again_when_it_changes() {
    let (fake, path) = registry().await;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    let layby = Setup::over(&fake)
        .of(UPSTREAM, r#"username = "robot""#)
        .of(
            UPSTREAM,
            &format!("password_file = {:?}", file.display().to_string()),
        )
        .start()
        .await;
    fake.protect(Protection::Basic { login: "robot:old" });
    layby.get(&path).await.expect(200);

    fake.protect(Protection::Basic {
        login: "robot:new-one",
    });
    std::fs::write(&file, "new-one\n").unwrap();
    let second = Content::random(63, KIB);
    fake.put_blob(REPOSITORY, &second);
    layby.get(&blob_path(REPOSITORY, &second)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_login_refused_is_said_so_and_never_a_401() {
    let (fake, path) = registry().await;
    let layby = with_login(Setup::over(&fake)).start().await;
    let office = TokenOffice::with_login(layby.clock(), Duration::from_secs(60), "robot:other");
    for protection in ["tokens", "basic"] {
        match protection {
            "tokens" => fake.protect_with_tokens(&office, &fake),
            _ => fake.protect(Protection::Basic {
                login: "robot:other",
            }),
        }
        let reply = layby.get(&path).await.expect(403);
        assert_eq!(reply.code(), "DENIED");
        assert_eq!(reply.header("www-authenticate"), None);
        assert!(!reply.text().contains("secret-password"));
        layby.clock().advance(Duration::from_secs(61));
    }
}

/// What Docker Hub does for a private repository, or one that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_401_after_a_token_becomes_403_denied() {
    let (fake, path) = registry().await;
    let layby = Layby::over(&fake).await;
    let office = TokenOffice::new(layby.clock(), Duration::from_secs(60));
    fake.give_tokens(&office);
    let realm = format!("{}/token", fake.origin());
    let challenge = format!(
        r#"Bearer realm="{realm}",service="x",scope="repository:org/app:pull",error="insufficient_scope""#
    );
    let refusal = Rule::path("/v2/").method("*").error(401, "UNAUTHORIZED");
    fake.script(refusal.header("www-authenticate", &challenge));
    let reply = layby.get(&path).await.expect(403);
    assert_eq!(reply.code(), "DENIED");
    assert_eq!(reply.header("www-authenticate"), None);
    assert!(office.given() <= 4, "{} tokens", office.given());
}

/// ECR's way to say that a token has expired: no challenge, and not even a 401.
#[tokio::test]
async fn a_refusal_that_speaks_of_an_expired_token_renews_it_once() {
    let (fake, path) = registry().await;
    let layby = Layby::over(&fake).await;
    let office = TokenOffice::new(layby.clock(), Duration::from_secs(3600));
    fake.protect_with_tokens(&office, &fake);
    layby.head(&path).await.expect(200);
    layby.later(Duration::from_secs(3)).await;
    let body = r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#;
    fake.script(
        Rule::path("/blobs/")
            .once()
            .answer(403, "application/json", body),
    );
    layby.get(&path).await.expect(200);
    assert_eq!(office.given(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_url_does_not_get_the_first_ones_credentials() {
    let (second, path) = registry().await;
    let first = Fake::start().await;
    first.go_down().await;
    let urls = format!(r#"url = ["{}", "{}"]"#, first.origin(), second.origin());
    let layby = with_login(Setup::over(&first).of(UPSTREAM, &urls))
        .start()
        .await;
    second.protect(Protection::Basic { login: LOGIN });
    let reply = layby.get(&path).await;
    assert!(reply.status() >= 400, "{}", reply.head.raw);
    assert!(!saw_credentials(&second));
    second.protect(Protection::Open);
    layby.clock().advance(Duration::from_secs(11));
    crate::support::eventually("the second url", || async {
        (layby.get(&path).await.status() == 200).then_some(())
    })
    .await;
}

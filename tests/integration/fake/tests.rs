//! The fake does what it is told, or no other test means anything.

use std::net::SocketAddr;
use std::time::Duration;

use layby::runtime::Clock;

use super::*;
use crate::support::{End, Image, KIB, MANIFEST_TYPES, Request, Wire, download, get, index_of};

fn address(fake: &Fake) -> SocketAddr {
    fake.inner.address
}

fn blob(repository: &str, content: &Content) -> String {
    format!("/v2/{repository}/blobs/{}", content.digest())
}

#[tokio::test]
async fn a_right_registry_serves_images_ranges_and_lists() {
    let fake = Fake::start().await;
    let image = Image::new(1, &[100 * KIB, 10]);
    let digest = image.push(&fake, "org/app", "one");
    fake.tag("org/app", "two", &digest);
    let index = index_of(&[&image]);
    fake.put_manifest("org/app", crate::support::OCI_INDEX, index.all());

    let manifest = Request::get("/v2/org/app/manifests/one");
    assert_eq!(manifest.send_to(address(&fake)).await.status(), 404);
    let manifest = manifest.header("Accept", &MANIFEST_TYPES.join(", "));
    let manifest = manifest.send_to(address(&fake)).await.expect(200);
    assert_eq!(manifest.body, image.manifest.all());
    assert_eq!(
        manifest.header("docker-content-digest"),
        Some(digest.as_str())
    );

    let layer = &image.layers[0];
    let part = Request::get(blob("org/app", layer)).range("5-9");
    let part = part.send_to(address(&fake)).await.expect(206);
    assert_eq!(part.body, layer.read(5..10));
    let whole = download(address(&fake), blob("org/app", layer)).await;
    assert!(whole.is_whole(layer.digest()));

    let list = get(address(&fake), "/v2/org/app/tags/list?n=1")
        .await
        .expect(200);
    assert_eq!(list.json()["tags"], serde_json::json!(["one"]));
    assert!(
        list.header("link")
            .is_some_and(|link| link.contains("last=one"))
    );

    assert_eq!(fake.record().gets(layer.digest()), 2);
    assert_eq!(fake.record().sent_twice(layer.digest()), 5);
    assert_eq!(fake.record().sent(layer.digest()), 100 * KIB + 5);
}

#[tokio::test]
async fn bodies_are_cut_shortened_lengthened_and_spoiled_as_scripted() {
    let fake = Fake::start().await;
    let content = Content::random(2, 300 * KIB);
    let digest = fake.put_blob("app", &content);
    let path = blob("app", &content);
    let script = |rule: Rule| {
        fake.mend();
        fake.script(rule);
    };

    for how in [Cut::Fin, Cut::Reset] {
        script(Rule::digest(&digest).cut(70_000, how));
        let cut = download(address(&fake), &path).await;
        assert_eq!(cut.end, End::Broken);
        assert!(cut.len <= 70_000);
    }
    script(Rule::digest(&digest).flip(299 * KIB));
    let flipped = get(address(&fake), &path).await.expect(200);
    let wrong = flipped
        .body
        .iter()
        .zip(content.all())
        .filter(|(a, b)| **a != *b);
    assert_eq!(wrong.count(), 1);

    script(Rule::digest(&digest).shorten(1000));
    assert_eq!(
        get(address(&fake), &path).await.expect(200).body.len(),
        1000
    );
    script(Rule::digest(&digest).append("more"));
    let longer = get(address(&fake), &path).await.expect(200);
    assert!(longer.body.ends_with(b"more"));
    script(Rule::digest(&digest).header("content-length", "400000"));
    assert_eq!(download(address(&fake), &path).await.end, End::Broken);
    script(Rule::digest(&digest).chunked());
    let chunked = get(address(&fake), &path).await.expect(200);
    assert_eq!(chunked.head.length(), None);
    assert_eq!(chunked.body, content.all());
    script(Rule::digest(&digest).without("content-length"));
    let unannounced = get(address(&fake), &path).await.expect(200);
    assert_eq!(unannounced.head.length(), None);
    assert_eq!(unannounced.body, content.all());
    script(Rule::digest(&digest).ignore_range());
    let whole = Request::get(&path)
        .range("5-9")
        .send_to(address(&fake))
        .await;
    assert_eq!(whole.expect(200).body, content.all());
}

#[tokio::test]
async fn a_gate_holds_a_body_until_it_is_opened() {
    let fake = Fake::start().await;
    let content = Content::random(3, 200 * KIB);
    let digest = fake.put_blob("app", &content);
    let gate = Gate::closed();
    fake.script(Rule::digest(&digest).wait_at(100 * KIB, &gate));

    let mut wire = Wire::connect(address(&fake)).await;
    wire.send(&Request::get(blob("app", &content))).await;
    let head = wire.head().await;
    let first = wire.exactly(100 * KIB).await;
    gate.reached().await;
    assert!(!wire.has_more_now());
    gate.open();
    let rest = wire.rest(head).await;
    assert_eq!([first, rest.body].concat(), content.all());
}

#[tokio::test]
async fn rules_end_after_their_times_and_only_one_is_used() {
    let fake = Fake::start().await;
    let content = Content::bytes("content");
    fake.put_blob("app", &content);
    let path = blob("app", &content);
    fake.script(Rule::path("/blobs/").once().error(503, "UNAVAILABLE"));
    fake.script(Rule::path("/blobs/").once().web_page());
    fake.script(
        Rule::path("/blobs/")
            .method("HEAD")
            .answer(405, "text/plain", "no"),
    );
    assert_eq!(get(address(&fake), &path).await.status(), 503);
    let page = get(address(&fake), &path).await.expect(200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(get(address(&fake), &path).await.expect(200).body, "content");
    assert_eq!(
        Request::head(&path).send_to(address(&fake)).await.status(),
        405
    );
}

#[tokio::test]
async fn tokens_are_for_one_repository_and_expire() {
    let (fake, elsewhere) = (Fake::start().await, Fake::start().await);
    let clock = Clock::system();
    let office = TokenOffice::with_login(&clock, Duration::from_secs(2), "user:secret");
    fake.protect_with_tokens(&office, &elsewhere);
    let content = Content::bytes("content");
    fake.put_blob("a", &content);

    let refused = get(address(&fake), blob("a", &content)).await.expect(401);
    let challenge = refused
        .header("www-authenticate")
        .unwrap_or_default()
        .to_owned();
    assert!(
        challenge.contains(r#"scope="repository:a:pull""#),
        "{challenge}"
    );
    let ask = Request::get("/token?service=fake&scope=repository:a:pull");
    assert_eq!(ask.send_to(address(&elsewhere)).await.status(), 401);
    let ask = ask.header("Authorization", "Basic dXNlcjpzZWNyZXQ=");
    let token = ask.send_to(address(&elsewhere)).await.expect(200).json();
    let token = format!("Bearer {}", token["token"].as_str().expect("a token"));

    let with_token = |path| Request::get(path).header("Authorization", &token);
    let right = with_token(blob("a", &content));
    assert_eq!(right.send_to(address(&fake)).await.status(), 200);
    let other = with_token(blob("b", &content))
        .send_to(address(&fake))
        .await;
    assert!(other.head.raw.contains("insufficient_scope"));
    clock.advance(Duration::from_secs(3));
    assert_eq!(right.send_to(address(&fake)).await.status(), 401);
}

#[tokio::test]
async fn a_storage_host_refuses_authorization_and_wants_its_signature() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    fake.redirect_blobs_to(&storage);
    storage.refuse_authorization();
    let content = Content::bytes("content");
    fake.put_blob("app", &content);

    let moved = get(address(&fake), blob("app", &content)).await.expect(307);
    let location = moved.header("location").expect("a location").to_owned();
    let path = location
        .strip_prefix(&storage.origin())
        .expect("the storage host");
    let there = address(&storage);
    assert_eq!(get(there, path).await.expect(200).body, "content");
    let with_login = Request::get(path).header("Authorization", "Bearer x");
    assert_eq!(with_login.send_to(there).await.status(), 400);
    let unsigned = path.split('?').next().unwrap_or_default();
    assert_eq!(get(there, unsigned).await.status(), 403);
    assert_eq!(fake.record().sent(content.digest()), 0);
}

#[tokio::test]
async fn it_goes_down_and_comes_back_at_the_same_address() {
    let fake = Fake::start().await;
    assert_eq!(get(address(&fake), "/v2/").await.status(), 200);
    fake.go_down().await;
    assert!(TcpStream::connect(address(&fake)).await.is_err());
    fake.come_back().await;
    assert_eq!(get(address(&fake), "/v2/").await.status(), 200);
    assert_eq!(fake.record().connections(), 2);
}

#[tokio::test]
async fn it_speaks_tls() {
    let identity = Identity::new(&[]);
    let fake = Fake::start_tls(&identity).await;
    let (mut wire, protocol) =
        Wire::connect_tls(address(&fake), identity.client(&["h2", "http/1.1"])).await;
    assert_eq!(protocol.as_deref(), Some(b"http/1.1".as_slice()));
    assert_eq!(wire.ask(&Request::get("/v2/")).await.status(), 200);
}

#[tokio::test]
async fn answers_break_off_and_stall_wherever_they_began() {
    let fake = Fake::start().await;
    let content = Content::random(4, 300 * KIB);
    let digest = fake.put_blob("app", &content);
    let path = blob("app", &content);
    fake.script(Rule::digest(&digest).cut_after(10_000, Cut::Fin).times(2));
    fake.script(Rule::digest(&digest).stall_within(20_000..20_001));
    for start in [0, 50_000] {
        let request = Request::get(&path).range(&format!("{start}-"));
        let cut = request.send_to(address(&fake)).await;
        assert_eq!(cut.end, End::Broken);
        assert_eq!(cut.body, content.read(start..start + 10_000));
    }
    let mut wire = Wire::connect(address(&fake)).await;
    wire.send(&Request::get(&path).range("1000-")).await;
    wire.head().await;
    let stalled = wire.exactly(20_000).await;
    assert_eq!(stalled, content.read(1000..21_000));
    assert!(!wire.has_more_now());
    assert_eq!(fake.record().broken(&digest), 3);
    // What is shorter is not touched.
    let short = Request::get(&path).range("0-9999");
    assert_eq!(short.send_to(address(&fake)).await.end, End::Complete);
    assert_eq!(fake.record().broken(&digest), 3);
}

#[tokio::test]
async fn a_signature_that_is_good_once_has_expired_afterwards() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    fake.redirect_blobs_to(&storage);
    storage.sign_once();
    let content = Content::bytes("content");
    fake.put_blob("app", &content);
    for _ in 0..2 {
        let moved = get(address(&fake), blob("app", &content)).await.expect(307);
        let location = moved.header("location").expect("a location").to_owned();
        let path = location.strip_prefix(&storage.origin()).expect("a path");
        let there = address(&storage);
        assert_eq!(get(there, path).await.expect(200).body, "content");
        assert!(
            get(there, path)
                .await
                .expect(403)
                .text()
                .contains("expired")
        );
    }
}

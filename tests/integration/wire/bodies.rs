//! Bodies: over TLS, slow ones, broken ones.

use super::{REPOSITORY, World};
use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{End, Identity, Image, KIB, Request, Setup, Wire, blob_path};

#[tokio::test(flavor = "multi_thread")]
async fn tls_serves_both_protocols_and_large_heads_over_http_2() {
    let scratch = tempfile::tempdir().unwrap();
    let identity = Identity::new(&[]);
    identity.write_to(scratch.path());
    let file = |name: &str| format!("{:?}", scratch.path().join(name).display().to_string());
    let fake = Fake::start().await;
    let image = Image::new(31, &[300 * KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Setup::over(&fake)
        .set("tls", r#"listen = "127.0.0.1:0""#)
        .set("tls", &format!("cert_file = {}", file("cert.pem")))
        .set("tls", &format!("key_file = {}", file("key.pem")))
        .start()
        .await;
    let layer = &image.layers[0];
    let path = blob_path(REPOSITORY, layer);

    let one = identity.client(&["http/1.1"]);
    let (mut wire, protocol) = Wire::connect_tls(layby.tls_address(), one).await;
    assert_eq!(protocol.as_deref(), Some(b"http/1.1".as_slice()));
    assert_eq!(
        wire.ask(&Request::get(&path)).await.expect(200).body,
        layer.all()
    );

    let two = identity.client(&["h2", "http/1.1"]);
    let mut client = crate::support::Http2::connect(layby.tls_address(), two).await;
    let long = "x".repeat(40 * 1024);
    let (head, body) = client.get(&path, &[("authorization", &long)]).await;
    assert_eq!(head.status, 200);
    assert_eq!(
        head.headers["docker-content-digest"],
        layer.digest().as_str()
    );
    assert_eq!(body.as_ref(), Ok(&layer.all()));
    let (head, _) = client.head(&path).await;
    assert_eq!(head.headers["content-length"], layer.len().to_string());

    // A body that cannot be finished ends its stream with an error, and no other stream.
    let broken = Content::random(32, 300 * KIB);
    fake.put_blob(REPOSITORY, &broken);
    fake.script(Rule::digest(broken.digest()).flip(7));
    let (_, body) = client.get(&blob_path(REPOSITORY, &broken), &[]).await;
    assert!(body.is_err());
    let (head, _) = client.get("/v2/", &[]).await;
    assert_eq!(head.status, 200);
}

// Fact 7: what fails does so before the status line; line 18: what fails later breaks the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_breaks_the_connection_and_one_before_is_an_error() {
    let world = World::new().await;
    let content = Content::random(33, 600 * KIB);
    world.fake.put_blob(REPOSITORY, &content);
    world.fake.script(
        Rule::digest(content.digest())
            .method("*")
            .error(503, "UNAVAILABLE"),
    );
    let path = blob_path(REPOSITORY, &content);
    assert_eq!(world.layby.get(&path).await.status(), 503);

    let world = World::new().await;
    world.fake.put_blob(REPOSITORY, &content);
    world
        .fake
        .script(Rule::digest(content.digest()).flip(600 * KIB - 1));
    let mut wire = Wire::connect(world.layby.address()).await;
    wire.send(&Request::get(&path)).await;
    let head = wire.head().await;
    let reply = wire.rest(head).await;
    assert_eq!((reply.status(), reply.end), (200, End::Broken));
    assert!((reply.body.len() as u64) < content.len());
    assert!(wire.is_closed().await);
}

// Fact 8: containerd gives up on a head after 30 s, so heads must not wait for bodies.
#[tokio::test(flavor = "multi_thread")]
async fn the_head_of_a_blob_does_not_wait_for_its_body() {
    let world = World::new().await;
    let content = Content::random(34, 600 * KIB);
    world.fake.put_blob(REPOSITORY, &content);
    let gate = Gate::closed();
    world
        .fake
        .script(Rule::digest(content.digest()).wait_at(0, &gate));
    let mut wire = Wire::connect(world.layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head = wire.head().await;
    assert_eq!((head.status, head.length()), (200, Some(content.len())));
    gate.open();
    wire.hash_rest(head).await.expect(&content);
}

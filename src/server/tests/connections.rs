use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::site::config;
use super::{Site, Wire, digest_of};
use crate::proxy::BrokenBody;

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let site = Site::start();
    let digest = site.fake.blob(vec![1; 100_000]);
    let mut wire = site.connect().await;
    for _ in 0..3 {
        let path = format!("/v2/a/blobs/{digest}");
        assert_eq!(wire.exchange("GET", &path, &[]).await.body.len(), 100_000);
        assert_eq!(
            wire.exchange("GET", "/v2/a/manifests/none", &[])
                .await
                .status,
            404
        );
    }
}

#[tokio::test]
async fn a_head_of_almost_64_kib_is_taken_and_a_larger_one_refused() {
    let site = Site::start();
    let header = |len: usize| format!("Authorization: Bearer {}", "x".repeat(len));
    let reply = site.ask("GET", "/v2/", &[&header(65_000)]).await;
    assert_eq!(reply.status, 200);
    let mut wire = site.connect().await;
    wire.request("GET", "/v2/", &[&header(66_000)]).await;
    assert_eq!(wire.head().await.unwrap().status, 431);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_cut() {
    let site = Site::start();
    let mut wire = site.connect().await;
    wire.write(b"GET /v2/ HTTP/1.1\r\nHost: ").await;
    let started = tokio::time::Instant::now();
    assert!(wire.is_closed().await);
    assert!(started.elapsed() <= Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut() {
    let site = Site::start();
    let blob = vec![3; 64 << 20];
    let digest = site.fake.blob(blob);
    let mut wire = site.connect().await;
    wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
        .await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let reply = wire.reply("GET").await;
    assert!(!reply.whole, "{} bytes", reply.body.len());
}

#[tokio::test]
async fn a_broken_body_never_ends_as_a_whole_one() {
    let site = Site::start();
    let broken = || BrokenBody {
        reason: "unavailable",
        message: "the upstream broke off".to_owned(),
    };
    for (name, len) in [("sized", Some(10)), ("unsized", None)] {
        let digest = digest_of(name.as_bytes());
        let sender = site.fake.live_blob(&digest, len);
        sender.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
        sender.send(Err(broken())).await.unwrap();
        let mut wire = site.connect().await;
        let path = format!("/v2/a/blobs/{digest}");
        let reply = wire.exchange("GET", &path, &[]).await;
        assert_eq!((reply.status, reply.whole), (200, false), "{name}");
        assert!(wire.is_closed().await, "{name}");
    }
}

#[tokio::test]
async fn a_body_shorter_or_longer_than_announced_never_ends_as_a_whole_one() {
    let site = Site::start();
    for (name, pieces) in [
        ("short", vec!["hello"]),
        ("long", vec!["hello", "hello and more"]),
    ] {
        let digest = digest_of(name.as_bytes());
        let sender = site.fake.live_blob(&digest, Some(10));
        for piece in pieces {
            sender.send(Ok(piece.into())).await.unwrap();
        }
        drop(sender);
        let reply = site.get(&format!("/v2/a/blobs/{digest}")).await;
        assert!(!reply.whole, "{name}: {:?}", reply.text());
    }
}

#[tokio::test]
async fn the_head_and_the_first_bytes_go_out_before_the_rest_is_there() {
    let site = Site::start();
    let digest = digest_of(b"hello world");
    let sender = site.fake.live_blob(&digest, Some(11));
    let mut wire = site.connect().await;
    wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
        .await;
    assert_eq!(
        wire.head().await.unwrap().header("content-length"),
        Some("11")
    );
    let mut body = Vec::new();
    sender.send(Ok("hello ".into())).await.unwrap();
    wire.exactly(6, &mut body).await.unwrap();
    sender.send(Ok("world".into())).await.unwrap();
    wire.exactly(5, &mut body).await.unwrap();
    assert_eq!(body, b"hello world");
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_reader() {
    let site = Site::start();
    let digest = digest_of(b"never read");
    let sender = site.fake.live_blob(&digest, Some(1 << 20));
    let mut wire = site.connect().await;
    wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
        .await;
    wire.head().await.unwrap();
    drop(wire);
    // Whatever else is in flight, the reader is gone sooner or later.
    sender.closed().await;
}

#[tokio::test]
async fn an_older_client_gets_no_body_whose_end_it_could_not_see() {
    let site = Site::start();
    let digest = digest_of(b"unsized");
    let _sender = site.fake.live_blob(&digest, None);
    let mut wire = site.connect().await;
    wire.write(format!("GET /v2/a/blobs/{digest} HTTP/1.0\r\n\r\n").as_bytes())
        .await;
    assert_eq!(wire.head().await.unwrap().status, 505);
}

#[tokio::test]
async fn ipv6_and_several_addresses_are_served() {
    let mut config = config();
    config.listen.push("[::1]:0".parse().unwrap());
    let site = Site::with(&config);
    for address in site.server.addresses() {
        let mut wire = Wire::connect(*address).await;
        assert_eq!(
            wire.exchange("GET", "/v2/", &[]).await.status,
            200,
            "{address}"
        );
    }
}

#[tokio::test]
async fn nonsense_is_answered_with_400_and_the_end() {
    let site = Site::start();
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"\x16\x03\x01 not http\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

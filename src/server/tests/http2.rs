//! HTTP/2 connections of clients that do wrong, or too much at once.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::digest_of;
use super::site::config;
use super::tls::{Secure, request};
use crate::proxy::CacheOutcome;
use crate::runtime::Tasks;

fn open_connections(secure: &Secure) -> i64 {
    secure.site.metrics.downstream.connections.get()
}

/// How long it takes until no connection is open.
async fn until_closed(secure: &Secure) -> Duration {
    let started = Instant::now();
    while open_connections(secure) > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    started.elapsed()
}

#[tokio::test]
async fn each_request_under_way_counts_against_the_limit() {
    let mut config = config();
    // The connection, and two requests.
    config.limits.max_connections_per_client = Some(3);
    let secure = Secure::with(config);
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let mut held = Vec::new();
    for name in ["one", "two"] {
        let digest = digest_of(name.as_bytes());
        let sender = secure.site.fake.live_blob(&digest, Some(1));
        let path = format!("/v2/a/blobs/{digest}");
        let reply = client.send_request(request("GET", &path, None)).await;
        held.push((sender, reply.unwrap()));
    }
    let mut ask = async || {
        let reply = client.send_request(request("GET", "/v2/", None)).await;
        let reply = reply.unwrap();
        (reply.status().as_u16(), reply.into_body().collect().await)
    };
    let (status, body) = ask().await;
    assert_eq!(status, 503);
    let body = body.unwrap().to_bytes();
    let body = std::str::from_utf8(&body).unwrap();
    assert!(body.contains("max_connections_per_client"), "{body}");

    let (sender, reply) = held.pop().unwrap();
    sender.send(Ok("x".into())).await.unwrap();
    assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "x");
    assert_eq!(ask().await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_although_its_client_answers_pings() {
    let secure = Secure::start();
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let digest = digest_of(b"slow");
    let sender = secure.site.fake.live_blob(&digest, Some(1));
    let path = format!("/v2/a/blobs/{digest}");
    let reply = client.send_request(request("GET", &path, None)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    sender.send(Ok("x".into())).await.unwrap();
    let body = reply.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "x", "a stream that waits is not idle");
    let idle = until_closed(&secure).await;
    assert!(
        idle > Duration::from_secs(50) && idle < Duration::from_secs(70),
        "{idle:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_speaks_http_is_left() {
    let secure = Secure::start();
    let mut silent = secure.connect(b"h2").await;
    let started = Instant::now();
    let mut settings = Vec::new();
    // What the server says for its part, and the end.
    let _ = silent.read_to_end(&mut settings).await;
    until_closed(&secure).await;
    assert!(started.elapsed() < Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_cut() {
    let secure = Secure::start();
    let address = secure.site.server.tls_addresses()[0];
    let mut silent = TcpStream::connect(address).await.unwrap();
    let started = Instant::now();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn tls_clients_over_the_limit_are_closed_at_once() {
    let mut config = config();
    config.limits.max_connections_per_client = Some(1);
    let secure = Secure::with(config);
    let _held = secure.connect(b"h2").await;
    let address = secure.site.server.tls_addresses()[0];
    let mut second = TcpStream::connect(address).await.unwrap();
    assert!(matches!(second.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_client_that_resets_what_it_asks_for_again_and_again_is_cut() {
    let secure = Secure::start();
    *secure.site.fake.hangs.lock() = true;
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let mut resets = 0;
    while client.ready().await.is_ok() {
        let asked = client.send_request(request("GET", "/v2/a/manifests/v1", None));
        let seen = async {
            while secure.site.fake.call.lock().take().is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = asked => break,
            () = seen => resets += 1,
        }
        assert!(resets < 1000, "never cut");
    }
    assert!(resets > 256, "cut after {resets}");
    until_closed(&secure).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_never_opens_is_reset() {
    let secure = Secure::start();
    secure
        .site
        .fake
        .manifest("v1", b"{\"never\":1}", CacheOutcome::Hit);
    let stream = TokioIo::new(secure.connect(b"h2").await);
    let (mut client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(stream)
        .await
        .unwrap();
    let tasks = Tasks::new();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let reply = client.send_request(request("GET", "/v2/a/manifests/v1", None));
    let reply = reply.await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(reply.into_body().collect().await.is_err());
}

//! Clients that do wrong, or too much at once.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::site::config;
use super::{Site, Wire};
use crate::proxy::CacheOutcome;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);

fn limited(total: u32, per_client: u32) -> Site {
    let mut config = config();
    config.limits.max_connections = Some(total);
    config.limits.max_connections_per_client = Some(per_client);
    Site::with(&config)
}

async fn served(wire: &mut Wire) {
    assert_eq!(wire.exchange("GET", "/v2/", &[]).await.status, 200);
}

async fn connected(site: &Site, from: Ipv4Addr) -> Wire {
    let mut wire = Wire::connect_from(from, site.address()).await;
    served(&mut wire).await;
    wire
}

fn open_connections(site: &Site) -> i64 {
    site.metrics.downstream.connections.get()
}

async fn until_open(site: &Site, connections: i64) {
    while open_connections(site) != connections {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_over_its_limit_is_told_so_while_another_is_served() {
    let site = limited(10, 2);
    let one = connected(&site, FIRST).await;
    let mut two = connected(&site, FIRST).await;
    let mut three = Wire::connect_from(FIRST, site.address()).await;
    let reply = three.exchange("GET", "/v2/", &[]).await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (503, Some("5"))
    );
    let (code, message) = reply.error();
    assert_eq!(code, "UNAVAILABLE");
    assert!(message.contains("max_connections_per_client"), "{message}");
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(three.is_closed().await);

    let other = connected(&site, OTHER).await;
    served(&mut two).await;
    assert_eq!(open_connections(&site), 3);
    let metrics = site.metrics.render();
    let refused = "layby_connections_refused_total{reason=\"client\"} 1\n";
    assert!(metrics.contains(refused), "{metrics}");

    drop(one);
    until_open(&site, 2).await;
    let again = connected(&site, FIRST).await;
    drop((two, again, other));
    until_open(&site, 0).await;
}

#[tokio::test]
async fn beyond_the_total_everyone_is_told_to_come_back() {
    let site = limited(2, 2);
    let _held = [connected(&site, FIRST).await, connected(&site, OTHER).await];
    for method in ["GET", "HEAD"] {
        let mut third = Wire::connect_from(OTHER, site.address()).await;
        let reply = third.exchange(method, "/v2/a/manifests/v1", &[]).await;
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("5"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refused_clients_that_say_nothing_are_closed_and_bounded() {
    let site = limited(1, 1);
    let _held = connected(&site, FIRST).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Wire::connect(site.address()).await);
    }
    // Whether it was among those that would have been told, or not.
    for mut wire in silent {
        assert!(wire.is_closed().await);
    }
}

#[tokio::test]
async fn a_panic_ends_its_request_and_nothing_else() {
    let site = Site::start();
    site.fake.manifest("v1", b"{}", CacheOutcome::Hit);
    let mut wire = site.connect().await;
    let reply = wire.exchange("GET", "/v2/a/manifests/panic", &[]).await;
    assert_eq!(reply.status, 500);
    let (code, message) = reply.error();
    assert_eq!(code, "UNKNOWN");
    assert!(message.contains("bug"), "{message}");
    for mut wire in [wire, site.connect().await] {
        let reply = wire.exchange("GET", "/v2/a/manifests/v1", &[]).await;
        assert_eq!(reply.status, 200);
    }
}

/// What comes back for these bytes, until the server ends the connection.
async fn answer_to(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    // The end may come before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn what_is_no_request_gets_a_clear_error_and_the_end() {
    let site = Site::start();
    let many = |count: usize| {
        let lines = (0..count).map(|n| format!("X-{n}: y\r\n"));
        lines.collect::<String>()
    };
    let long = "x".repeat(70_000);
    for (what, request, status) in [
        ("a line feed alone", "\n\n\nGET\n\n".to_owned(), "400"),
        (
            "no version",
            "GET /v2/\r\nHost: a\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a version of the future",
            "GET /v2/ HTTP/3.0\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "NUL in the target",
            "GET /v2/\0 HTTP/1.1\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "NUL in a header's value",
            "GET /v2/ HTTP/1.1\r\nHost: a\0b\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a space before the colon",
            "GET /v2/ HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a folded header",
            "GET /v2/ HTTP/1.1\r\nHost: a\r\n b\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a negative length",
            "GET /v2/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "two lengths",
            "GET /v2/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "an unknown coding",
            "GET /v2/ HTTP/1.1\r\nTransfer-Encoding: zip\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "a target without end",
            format!("GET /{long} HTTP/1.1\r\n\r\n"),
            "431",
        ),
        (
            "a header without end",
            format!("GET /v2/ HTTP/1.1\r\nX: {long}{long}{long}"),
            "431",
        ),
        (
            "too many headers",
            format!("GET /v2/ HTTP/1.1\r\n{}\r\n", many(1000)),
            "431",
        ),
    ] {
        let answer = answer_to(&site, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{what}: {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            1,
            "{what} is the last: {answer}"
        );
    }
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_read_but_the_request_is_answered() {
    let site = Site::start();
    let huge = vec![b'x'; 512 * 1024];
    let smuggled = b"GET /v2/_catalog HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, headers, body) in [
        ("small", "Content-Length: 2", &b"{}"[..]),
        ("huge", "Content-Length: 524288", &huge[..]),
        (
            "endless",
            "Transfer-Encoding: chunked",
            b"10\r\n0123456789abcdef\r\n",
        ),
        (
            "bad chunks",
            "Transfer-Encoding: chunked",
            b"zz\r\nnonsense\r\n",
        ),
        (
            "a chunk of a size that overflows",
            "Transfer-Encoding: chunked",
            b"fffffffffffffffff\r\n",
        ),
        (
            "a request in a body",
            "Transfer-Encoding: chunked\r\nContent-Length: 41",
            smuggled,
        ),
    ] {
        let mut request = format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n").into_bytes();
        request.extend_from_slice(body);
        let answer = answer_to(&site, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
        assert!(answer.contains("connection: close"), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_told_to_send_a_body() {
    let site = Site::start();
    let mut wire = site.connect().await;
    let headers = ["Content-Length: 1000000000", "Expect: 100-continue"];
    let reply = wire.exchange("PUT", "/v2/a/manifests/v1", &headers).await;
    assert_eq!(reply.status, 405);
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn odd_methods_and_targets_are_refused_and_the_connection_goes_on() {
    let site = Site::start();
    let mut wire = site.connect().await;
    for (line, status) in [
        ("TRACE /v2/ HTTP/1.1", 405),
        ("OPTIONS * HTTP/1.1", 405),
        ("BREW /v2/ HTTP/1.1", 405),
        ("GET http://elsewhere.test/latest/meta-data HTTP/1.1", 404),
        ("GET /v2/%00/manifests/v1 HTTP/1.1", 400),
        ("GET /v2/../../etc/passwd HTTP/1.1", 400),
    ] {
        wire.write(format!("{line}\r\nHost: layby.test\r\n\r\n").as_bytes())
            .await;
        let reply = wire.reply("GET").await;
        assert_eq!(reply.status, status, "{line}: {reply:?}");
        reply.error();
    }
    served(&mut wire).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_a_while() {
    let site = Site::start();
    let mut wire = site.connect().await;
    served(&mut wire).await;
    let started = tokio::time::Instant::now();
    assert!(wire.is_closed().await);
    let idle = started.elapsed();
    assert!(
        idle > Duration::from_secs(50) && idle < Duration::from_secs(70),
        "{idle:?}"
    );
    assert_eq!(open_connections(&site), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_cut_all_the_same() {
    let site = Site::start();
    let mut wire = site.connect().await;
    wire.write(b"GET /v2/ HTTP/1.1\r\nX: ").await;
    let started = tokio::time::Instant::now();
    while open_connections(&site) > 0 || started.elapsed().is_zero() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wire.try_write(b"x").await;
    }
    assert!(started.elapsed() < Duration::from_secs(70));
}

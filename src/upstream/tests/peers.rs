//! Upstreams that send what no registry does: the memory that they take is bounded, and the error is clear.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::fakes::{Authority, Fake};
use super::*;

/// Most bytes that we and the sockets between may have taken of what has no end.
const BOUNDED: u64 = 32 << 20;

/// A server that answers every request with `start` and then `more`, again and again, until nobody takes it.
struct Endless {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    tasks: Tasks,
}

impl Endless {
    async fn start(start: impl Into<String>, more: String) -> Self {
        let start: Arc<str> = start.into().into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), Tasks::new());
        let sent = Arc::<AtomicU64>::default();
        let (count, group) = (Arc::clone(&sent), tasks.clone());
        tasks.spawn_until_stop(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (count, start) = (Arc::clone(&count), Arc::clone(&start));
                let more = more.clone();
                group.spawn_until_stop(async move {
                    let mut head = [0; 1024];
                    let _ = stream.read(&mut head).await;
                    let _ = stream.write_all(start.as_bytes()).await;
                    while stream.write_all(more.as_bytes()).await.is_ok() {
                        count.fetch_add(more.len() as u64, Ordering::SeqCst);
                    }
                });
            }
        });
        Self {
            address,
            sent,
            tasks,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn pull(url: &str) -> Error {
    let upstream = World::new(&[url]).upstream();
    let manifest = upstream.get_manifest(&repository(), &tag(), &call()).await;
    manifest.unwrap_err()
}

#[tokio::test]
async fn heads_without_end_are_an_error() {
    for more in [
        "x-more: and more\r\n".repeat(1000),
        "x".repeat(64 * 1024),
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\nx-".to_owned(),
    ] {
        let registry = Endless::start("HTTP/1.1 200 OK\r\nx-first: ", more).await;
        let error = pull(&registry.url()).await;
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        let sent = registry.sent.load(Ordering::SeqCst);
        assert!(sent < BOUNDED, "{sent}");
    }
}

#[tokio::test]
async fn chunks_and_trailers_without_end_are_an_error() {
    for (start, more) in [
        ("0\r\nx-first: 1\r\n", "x-more: and more\r\n".repeat(1000)),
        ("0\r\nx-first: ", "x".repeat(64 * 1024)),
        ("5;", "x".repeat(64 * 1024)),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{start}");
        let registry = Endless::start(head, more).await;
        let error = pull(&registry.url()).await;
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        let sent = registry.sent.load(Ordering::SeqCst);
        assert!(sent < BOUNDED, "{sent}");
    }
}

#[tokio::test]
async fn a_huge_head_over_http2_is_an_error() {
    let authority = Authority::new();
    let config = authority.server("registry.example", &["h2"], None);
    let registry = Fake::tls(config, |_| {
        let names = ["x-a", "x-b", "x-c", "x-d", "x-e", "x-f", "x-g", "x-h"];
        let answer = Answer::ok(CONTENT);
        names.into_iter().fold(answer, |answer, name| {
            answer.with(name, "x".repeat(8 << 10))
        })
    })
    .await;
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), &authority.pem).unwrap();
    let mut world = World::new(&["https://registry.example"]);
    let network = &world.network;
    network.host("registry.example", "203.0.113.10", registry.address);
    world.upstream.ca_file = Some(ca_file.path().to_owned());
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn bodies_without_end_are_an_error_after_what_is_read_of_them() {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (start, reason) in [
        (
            "HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n",
            "unavailable",
        ),
        (
            "HTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n",
            "not_found",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "invalid",
        ),
    ] {
        let registry = Endless::start(start, chunk.clone()).await;
        let error = pull(&registry.url()).await;
        assert_eq!(error.reason(), reason, "{error:?}");
        assert!(error.to_string().len() < 2000);
        let sent = registry.sent.load(Ordering::SeqCst);
        assert!(sent < BOUNDED, "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_body_never_ends_is_known_by_its_status() {
    let registry = Fake::plain(|_| {
        Answer::new(404, "x")
            .with("content-length", "9")
            .then_hang()
    })
    .await;
    let began = Instant::now();
    assert_eq!(pull(&registry.url()).await.reason(), "not_found");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_compressed_bomb_is_never_unpacked_be_it_content_or_an_error() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![b'x'; 16 << 20]).unwrap();
    let bomb = packer.finish().unwrap();
    for (status, reason) in [(200, "invalid"), (404, "not_found"), (500, "unavailable")] {
        let body = bomb.clone();
        let registry = Fake::plain(move |_| {
            Answer::new(status, body.clone())
                .with("content-encoding", "gzip")
                .with("content-type", "application/json")
        })
        .await;
        let error = pull(&registry.url()).await;
        assert_eq!(error.reason(), reason, "{error:?}");
        let text = error.to_string();
        assert!(text.is_ascii() && text.len() < 200, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_in_place_of_a_token_is_an_error_of_the_token_service() {
    let huge = format!(r#"{{"token":"{}"}}"#, "x".repeat(1 << 20));
    for garbage in [
        "",
        "<html>login</html>",
        "[]",
        "null",
        r#"{"token":7}"#,
        r#"{"token":""}"#,
        r#"{"token":"a\r\nx-injected: yes"}"#,
        r#"{"token":"a\u0000b"}"#,
        huge.as_str(),
        &"[".repeat(60_000),
    ] {
        let body = garbage.to_owned();
        let registry = Fake::plain(move |seen| match seen.path() {
            "/token" => Answer::ok(body.clone()),
            _ => Answer::new(401, "").with(
                "www-authenticate",
                format!(
                    r#"Bearer realm="http://{}/token""#,
                    seen.header("host").unwrap()
                ),
            ),
        })
        .await;
        let error = pull(&registry.url()).await;
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains("/token"), "{error}");
        assert!(
            registry
                .seen()
                .iter()
                .all(|seen| seen.header("authorization").is_none())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_absurd_lifetime_of_a_token_does_no_harm() {
    for lifetime in [
        "1e308",
        "-5",
        "\"never\"",
        "null",
        "18446744073709551616",
        "[]",
        "0.0001",
    ] {
        let body = format!(r#"{{"token":"t","expires_in":{lifetime}}}"#);
        let registry = Fake::plain(
            move |seen| match (seen.path(), seen.header("authorization")) {
                ("/token", _) => Answer::ok(body.clone()),
                (_, Some("Bearer t")) => index(seen),
                _ => Answer::new(401, "").with(
                    "www-authenticate",
                    format!(
                        r#"Bearer realm="http://{}/token""#,
                        seen.header("host").unwrap()
                    ),
                ),
            },
        )
        .await;
        let upstream = World::new(&[&registry.url()]).upstream();
        let manifest = upstream.get_manifest(&repository(), &tag(), &call()).await;
        assert!(manifest.is_ok(), "{lifetime}: {manifest:?}");
    }
}

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::site::config;
use super::{Site, digest_of};
use crate::config::{Config, TlsListener};
use crate::proxy::BrokenBody;
use crate::runtime::Tasks;

/// A site with a TLS listener, and who trusts it.
pub(super) struct Secure {
    pub(super) site: Site,
    roots: RootCertStore,
    _dir: tempfile::TempDir,
}

impl Secure {
    pub(super) fn start() -> Self {
        Self::with(config())
    }

    pub(super) fn with(mut config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["layby.test".to_owned()]).unwrap();
        let tls = TlsListener {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            cert_file: dir.path().join("cert.pem"),
            key_file: dir.path().join("key.pem"),
        };
        std::fs::write(&tls.cert_file, pair.cert.pem()).unwrap();
        std::fs::write(&tls.key_file, pair.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        config.tls = Some(tls);
        Self {
            site: Site::with(&config),
            roots,
            _dir: dir,
        }
    }

    pub(super) async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        self.connect_by(provider, protocol).await
    }

    async fn connect_by(&self, provider: CryptoProvider, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.site.server.tls_addresses()[0])
            .await
            .unwrap();
        let name = ServerName::try_from("layby.test").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    pub(super) async fn http2(&self, tasks: &Tasks) -> SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.connect(b"h2").await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        sender
    }
}

pub(super) fn request(
    method: &str,
    path: &str,
    header: Option<(&str, &str)>,
) -> http::Request<Empty<Bytes>> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("https://layby.test{path}"));
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.body(Empty::new()).unwrap()
}

#[tokio::test]
async fn http2_and_http1_are_served_as_the_client_chooses() {
    let secure = Secure::start();
    let digest = secure.site.fake.file_blob(&vec![9; 1_000_000]);
    let path = format!("/v2/a/blobs/{digest}");
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let reply = client
        .send_request(request("GET", &path, None))
        .await
        .unwrap();
    assert_eq!(reply.headers()["content-length"], "1000000");
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(digest_of(&body), digest);
    let head = client
        .send_request(request("HEAD", &path, None))
        .await
        .unwrap();
    assert_eq!(head.headers()["content-length"], "1000000");

    let mut stream = secure.connect(b"http/1.1").await;
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: layby.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What a client is encrypted with that offers `first` before the others.
async fn cipher_for(secure: &Secure, first: CipherSuite) -> CipherSuite {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    let stream = secure.connect_by(provider, b"http/1.1").await;
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
    suite.suite()
}

#[tokio::test]
async fn a_client_that_is_slow_with_aes_gets_what_it_asks_for_and_any_other_what_costs_least() {
    let secure = Secure::start();
    for (first, chosen) in [
        (
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ),
        (
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
        ),
        (
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
        ),
    ] {
        assert_eq!(cipher_for(&secure, first).await, chosen, "{first:?}");
    }
}

#[tokio::test]
async fn large_heads_are_taken_over_http2() {
    let secure = Secure::start();
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let token = "x".repeat(60_000);
    let request = request("GET", "/v2/", Some(("authorization", &token)));
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_broken_body_resets_its_stream_and_no_other() {
    let secure = Secure::start();
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let digest = digest_of(b"broken");
    let sender = secure.site.fake.live_blob(&digest, Some(10));
    sender.send(Ok("hello".into())).await.unwrap();
    let broken = BrokenBody {
        reason: "unavailable",
        message: "the upstream broke off".to_owned(),
    };
    sender.send(Err(broken)).await.unwrap();
    let path = format!("/v2/a/blobs/{digest}");
    let reply = client
        .send_request(request("GET", &path, None))
        .await
        .unwrap();
    assert!(reply.into_body().collect().await.is_err());
    let next = client
        .send_request(request("GET", "/v2/", None))
        .await
        .unwrap();
    assert_eq!(next.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_takes_nothing_is_reset_and_no_other() {
    let secure = Secure::start();
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let digest = digest_of(b"never read");
    let sender = secure.site.fake.live_blob(&digest, Some(1 << 30));
    let path = format!("/v2/a/blobs/{digest}");
    let stuck = client
        .send_request(request("GET", &path, None))
        .await
        .unwrap();
    // More than any window, then the reader is dropped with its stream.
    while sender.send(Ok(vec![0; 64 * 1024].into())).await.is_ok() {}
    let next = client
        .send_request(request("GET", "/v2/", None))
        .await
        .unwrap();
    assert_eq!(next.status(), 200);
    assert!(stuck.into_body().collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_its_source_is_not_cut() {
    let secure = Secure::start();
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let digest = digest_of(b"slow");
    let sender = secure.site.fake.live_blob(&digest, Some(4));
    let path = format!("/v2/a/blobs/{digest}");
    let reply = client
        .send_request(request("GET", &path, None))
        .await
        .unwrap();
    sender.send(Ok("sl".into())).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    sender.send(Ok("ow".into())).await.unwrap();
    assert_eq!(
        reply.into_body().collect().await.unwrap().to_bytes(),
        "slow"
    );
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_holds_up_nobody() {
    let secure = Secure::start();
    let address = secure.site.server.tls_addresses()[0];
    let _silent = TcpStream::connect(address).await.unwrap();
    let tasks = Tasks::new();
    let mut client = secure.http2(&tasks).await;
    let reply = client
        .send_request(request("GET", "/v2/", None))
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
}

//! An HTTP/2 client, the one thing here that is not written by hand.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Collected, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::soon;

/// A connection with any number of streams.
#[derive(Debug)]
pub(crate) struct Http2 {
    streams: SendRequest<Empty<Bytes>>,
    _driving: JoinSet<()>,
}

/// Status and headers of an answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Status code.
    pub(crate) status: u16,
    /// Headers.
    pub(crate) headers: HeaderMap,
}

impl Http2 {
    /// Connects with TLS as `localhost`; fails where HTTP/2 is not agreed on.
    pub(crate) async fn connect(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Self {
        let tcp = TcpStream::connect(address).await.expect("connects");
        let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(config);
        let tls = soon("handshake", connector.connect(name, tcp))
            .await
            .expect("a handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let io = TokioIo::new(tls);
        let (streams, driver) = http2::handshake(TokioExecutor::new(), io)
            .await
            .expect("HTTP/2");
        let mut driving = JoinSet::new();
        driving.spawn(async move {
            // Its end is seen by whoever waits for an answer.
            let _ = driver.await;
        });
        Self {
            streams,
            _driving: driving,
        }
    }

    /// `GET`; the body is an error where its stream was reset.
    pub(crate) async fn get(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (Answered, Result<Bytes, ()>) {
        self.ask(Method::GET, path, headers).await
    }

    /// `HEAD`.
    pub(crate) async fn head(&mut self, path: &str) -> (Answered, Result<Bytes, ()>) {
        self.ask(Method::HEAD, path, &[]).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (Answered, Result<Bytes, ()>) {
        let uri = format!("https://localhost{path}");
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).expect("a request");
        let answer = soon("an answer", self.streams.send_request(request)).await;
        let (head, body) = answer.expect("an answer").into_parts();
        let body = soon("a body", body.collect()).await;
        let answered = Answered {
            status: head.status.as_u16(),
            headers: head.headers,
        };
        (answered, body.map(Collected::to_bytes).map_err(drop))
    }
}

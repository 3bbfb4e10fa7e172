//! A registry that does as it is told, a network that leads to it, and certificates.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::runtime::Tasks;
use crate::upstream::exchange::BoxFuture;
use crate::upstream::net::{Network, Share};

/// A request as the fake saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// Number of the connection, from 0.
    pub(super) connection: usize,
    /// Number of the request on its connection, from 0.
    pub(super) turn: usize,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }
}

/// What the fake does with a request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    End,
    /// The connection breaks.
    Break,
    /// Nothing more comes.
    Hang,
    /// Nothing comes at all, and the connection breaks.
    NoAnswer,
    /// Nothing comes at all.
    NeverAnswer,
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            then: Then::End,
        }
    }

    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub(super) fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::new(status, "<html>moved").with("location", location)
    }

    pub(super) fn no_answer() -> Self {
        Self {
            then: Then::NoAnswer,
            ..Self::ok("")
        }
    }

    pub(super) fn never() -> Self {
        Self {
            then: Then::NeverAnswer,
            ..Self::ok("")
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn then_break(mut self) -> Self {
        self.then = Then::Break;
        self
    }

    pub(super) fn then_hang(mut self) -> Self {
        self.then = Then::Hang;
        self
    }

    /// The response; `whole` counts the bodies whose last byte was taken.
    fn into_response(self, whole: Arc<AtomicUsize>) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
        let mut response = Response::builder().status(self.status);
        let has_length = self
            .headers
            .iter()
            .any(|(name, _)| matches!(*name, "content-length" | "transfer-encoding" | "no-length"));
        if !has_length {
            response = response.header("content-length", self.body.len());
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "no-length") {
            response = response.header(*name, value);
        }
        let mut left = Bytes::from(self.body);
        let bytes = std::iter::from_fn(move || {
            let chunk = left.split_to(left.len().min(CHUNK));
            if left.is_empty() && !chunk.is_empty() {
                whole.fetch_add(1, Ordering::SeqCst);
            }
            (!chunk.is_empty()).then(|| Ok(Frame::data(chunk)))
        });
        let rest = match self.then {
            Then::Break => stream::once(async {
                // Lets what came before reach the socket.
                tokio::task::yield_now().await;
                Err(io::Error::other("broken"))
            })
            .boxed(),
            Then::Hang => stream::pending().boxed(),
            _ => stream::empty().boxed(),
        };
        let body = StreamBody::new(stream::iter(bytes).chain(rest));
        response.body(body.boxed_unsync()).unwrap()
    }
}

/// Most bytes of a body that are given out at once.
const CHUNK: usize = 64 << 10;

type Handler = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A server on loopback.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<()>,
    whole: Arc<AtomicUsize>,
    _tasks: StopOnDrop,
}

/// Ends the fake's tasks with it.
struct StopOnDrop(Tasks);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Fake {
    pub(super) async fn plain(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(handler)).await
    }

    pub(super) async fn tls(
        config: rustls::ServerConfig,
        handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(Arc::new(config).into()), Arc::new(handler)).await
    }

    async fn start(tls: Option<tokio_rustls::TlsAcceptor>, handler: Handler) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (open, whole): (Arc<()>, Arc<AtomicUsize>) = Default::default();
        let log = Log {
            seen: Arc::clone(&seen),
            whole: Arc::clone(&whole),
        };
        let tasks = Tasks::new();
        let (count, held, group) = (Arc::clone(&connections), Arc::clone(&open), tasks.clone());
        tasks.spawn_until_stop(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = count.fetch_add(1, Ordering::SeqCst);
                let (tls, log, handler) = (tls.clone(), log.clone(), Arc::clone(&handler));
                let held = Arc::clone(&held);
                group.spawn_until_stop(async move {
                    match tls {
                        None => serve(stream, connection, log, handler).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, connection, log, handler).await;
                            }
                        }
                    }
                    drop(held);
                });
            }
        });
        Self {
            address,
            seen,
            connections,
            open,
            whole,
            _tasks: StopOnDrop(tasks),
        }
    }

    /// Bodies so far whose last byte was taken.
    pub(super) fn sent_whole(&self) -> usize {
        self.whole.load(Ordering::SeqCst)
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Connections taken so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that are not closed.
    pub(super) fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 2
    }

    /// `http://127.0.0.1:port`
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// What a server keeps of what happens.
#[derive(Clone)]
struct Log {
    seen: Arc<Mutex<Vec<Seen>>>,
    whole: Arc<AtomicUsize>,
}

async fn serve<S>(stream: S, connection: usize, log: Log, handler: Handler)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let turn = AtomicUsize::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Seen {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            connection,
            turn: turn.fetch_add(1, Ordering::SeqCst),
        };
        log.seen.lock().push(seen.clone());
        let answer = handler(&seen);
        let whole = Arc::clone(&log.whole);
        async move {
            match answer.then {
                Then::NoAnswer => Err(io::Error::other("no answer")),
                Then::NeverAnswer => std::future::pending().await,
                _ => Ok(answer.into_response(whole)),
            }
        }
    });
    // Broken connections are what some tests are about.
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Names with addresses of the test's choice, and sockets that lead to fakes on loopback.
#[derive(Debug, Default, Clone)]
pub(super) struct FakeNetwork {
    names: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    hosts: Arc<Mutex<HashMap<IpAddr, Option<SocketAddr>>>>,
    opened: Arc<Mutex<Vec<SocketAddr>>>,
    hanging: Arc<Mutex<HashSet<String>>>,
    stuck: Arc<AtomicUsize>,
}

impl FakeNetwork {
    /// Lets the look-up of `name` never end.
    pub(super) fn hang(&self, name: &str) {
        self.hanging.lock().insert(name.to_owned());
    }

    /// How many look-ups that never end were begun.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.load(Ordering::SeqCst)
    }

    /// Lets `name` have the address `ip`, where `fake` answers on every port.
    pub(super) fn host(&self, name: &str, ip: &str, fake: SocketAddr) {
        self.add(name, ip, Some(fake));
    }

    /// Lets `name` have the address `ip`, where nothing ever answers.
    pub(super) fn black_hole(&self, name: &str, ip: &str) {
        self.add(name, ip, None);
    }

    fn add(&self, name: &str, ip: &str, fake: Option<SocketAddr>) {
        let ip: IpAddr = ip.parse().unwrap();
        self.names
            .lock()
            .entry(name.to_owned())
            .or_default()
            .push(ip);
        self.hosts.lock().insert(ip, fake);
    }

    /// Addresses that were connected to.
    pub(super) fn opened(&self) -> Vec<SocketAddr> {
        self.opened.lock().clone()
    }
}

impl Network for FakeNetwork {
    fn resolve<'a>(
        &'a self,
        share: &'a Share,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let hangs = self.hanging.lock().contains(host);
        let found = self.names.lock().get(host).cloned().unwrap_or_default();
        let found = found
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        Box::pin(async move {
            let _part = share.take().await?;
            if hangs {
                self.stuck.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            Ok(found)
        })
    }

    fn open(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        self.opened.lock().push(address);
        let fake = self.hosts.lock().get(&address.ip()).copied();
        Box::pin(async move {
            match fake {
                Some(Some(fake)) => TcpStream::connect(fake).await,
                Some(None) => std::future::pending().await,
                None => TcpStream::connect(address).await,
            }
        })
    }
}

/// A proxy that understands `CONNECT` and leads every tunnel to one place.
pub(super) struct FakeTunnel {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: StopOnDrop,
}

impl FakeTunnel {
    pub(super) async fn to(target: SocketAddr, answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, tasks) = (Arc::clone(&heads), Tasks::new());
        tasks.spawn_until_stop(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _: Result<(), io::Error> = tunnel(stream, target, answer, &log).await;
            }
        });
        Self {
            address,
            heads,
            _tasks: StopOnDrop(tasks),
        }
    }

    /// The requests it got.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

async fn tunnel(
    mut client: TcpStream,
    target: SocketAddr,
    answer: &str,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    log.lock().push(String::from_utf8(head).unwrap());
    client
        .write_all(format!("HTTP/1.1 {answer}\r\nVia: 1.1 proxy\r\n\r\n").as_bytes())
        .await?;
    if answer.starts_with("200") {
        let mut server = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    }
    Ok(())
}

/// Certificate authority for tests.
pub(super) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(super) pem: String,
}

/// A certificate with its key, both PEM.
pub(super) struct Leaf {
    pub(super) cert: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        let name = format!("authority {}", fastrand::u64(..));
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    pub(super) fn leaf(&self, name: &str) -> Leaf {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf {
            cert,
            key: key.serialize_pem(),
        }
    }

    /// TLS for a server called `name`; with `clients`, only for those that show a certificate of that authority.
    pub(super) fn server(
        &self,
        name: &str,
        alpn: &[&str],
        clients: Option<&Self>,
    ) -> rustls::ServerConfig {
        use rustls_pki_types::pem::PemObject as _;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
                roots.add(root).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    provider,
                );
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let leaf = self.leaf(name);
        let cert = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![cert], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

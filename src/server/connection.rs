//! Connections: HTTP/1.1 and HTTP/2 over whatever carries bytes, from the accept to the last one drained.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::ResponseBody;
use super::listener::Listener;
use super::stall::{StallGuard, watch_stream};
use super::tls::ALPN_H2;
use crate::proxy::BrokenBody;
use crate::runtime::Tasks;

/// Answers requests; what the connections of one kind of listener have in common.
pub(super) trait Respond: Send + Sync + 'static {
    /// The answer to a request from `client`, whose body, if any, is not read.
    fn respond(
        &self,
        client: SocketAddr,
        request: Parts,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// The connections of some listeners that one [`Respond`] answers.
#[derive(Debug)]
pub(super) struct Connections<R> {
    responder: Arc<R>,
    tasks: Tasks,
    cut: CancellationToken,
    slots: Arc<Semaphore>,
    handshakes: Semaphore,
    stall_timeout: Duration,
}

impl<R: Respond> Connections<R> {
    /// Connections, `most` at once, as tasks of a child of `tasks`.
    pub(super) fn new(
        responder: R,
        tasks: &Tasks,
        most: usize,
        stall_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            responder: Arc::new(responder),
            tasks: tasks.child(),
            cut: CancellationToken::new(),
            slots: Arc::new(Semaphore::new(most)),
            handshakes: Semaphore::new(HANDSHAKES),
            stall_timeout,
        })
    }

    /// Accepts from `listener` as a task of `accepting` until that stops.
    pub(super) fn accept(
        self: &Arc<Self>,
        listener: Listener,
        tls: Option<TlsAcceptor>,
        accepting: &Tasks,
    ) {
        let connections = Arc::clone(self);
        accepting.spawn_until_stop(async move {
            // The semaphore is never closed; beyond its slots, clients wait in the kernel's queue.
            while let Ok(slot) = Arc::clone(&connections.slots).acquire_owned().await {
                let (stream, client) = listener.accept().await;
                let (this, tls) = (Arc::clone(&connections), tls.clone());
                connections.tasks.spawn(async move {
                    this.connection(stream, client, tls).await;
                    drop(slot);
                });
            }
        });
    }

    /// Lets responses under way finish for `grace`, closes what is idle at once, and cuts the rest; whether none had
    /// to be cut.
    pub(super) async fn drain(&self, grace: Duration) -> bool {
        self.tasks.stop();
        let drained = self.tasks.drained(grace).await;
        if !drained {
            tracing::warn!(
                connections = self.tasks.len(),
                "cut what was still under way at the end of shutdown_grace"
            );
            self.cut.cancel();
            self.tasks.drained(CUT_WAIT).await;
        }
        drained
    }

    async fn connection(&self, stream: TcpStream, client: SocketAddr, tls: Option<TlsAcceptor>) {
        let stream = StallGuard::new(stream, self.stall_timeout);
        let Some(tls) = tls else {
            return self.http1(stream, client).await;
        };
        let handshake = async {
            let _permit = self.handshakes.acquire().await.ok()?;
            Some(tls.accept(stream).await)
        };
        let stopping = self.tasks.stopping();
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake);
        match stopping.run_until_cancelled(handshake).await {
            Some(Ok(Some(Ok(stream)))) => {
                if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
                    self.http2(stream, client).await;
                } else {
                    self.http1(stream, client).await;
                }
            }
            Some(Ok(Some(Err(error)))) => {
                tracing::debug!(%client, %error, "tls handshake failed");
            }
            Some(Err(_)) => tracing::debug!(%client, "tls handshake timed out"),
            Some(Ok(None)) | None => {}
        }
    }

    async fn http1<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(HEAD_BYTES + SLACK_BYTES)
            .keep_alive(true)
            .pipeline_flush(false);
        let connection = builder.serve_connection(TokioIo::new(stream), self.service(client));
        self.drive(connection, client).await;
    }

    async fn http2<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(Streams {
            tasks: self.tasks.clone(),
            stall_timeout: self.stall_timeout,
        });
        builder
            .timer(TokioTimer::new())
            // Requests have no bodies worth a window.
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(256 * 1024)
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(HEAD_BYTES)
            .max_header_list_size(HEAD_LIST_BYTES)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(stream), self.service(client));
        self.drive(connection, client).await;
    }

    fn service(
        &self,
        client: SocketAddr,
    ) -> impl HttpService<
        Incoming,
        ResBody = ResponseBody,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + use<R>,
    > + use<R> {
        let responder = Arc::clone(&self.responder);
        service_fn(move |request: Request<Incoming>| {
            let responder = Arc::clone(&responder);
            async move {
                let (head, _body) = request.into_parts();
                Ok(responder.respond(client, head).await)
            }
        })
    }

    /// Runs a connection to its end, asking it to finish when the tasks are told to stop.
    async fn drive<C: Drain>(&self, connection: C, client: SocketAddr) {
        let mut connection = pin!(connection);
        let stopping = self.tasks.stopping();
        let mut asked = false;
        loop {
            tokio::select! {
                end = connection.as_mut() => {
                    if let Err(error) = end {
                        tracing::debug!(%client, %error, "connection ended early");
                    }
                    return;
                }
                () = stopping.cancelled(), if !asked => {
                    asked = true;
                    connection.as_mut().finish();
                }
                () = self.cut.cancelled() => return,
            }
        }
    }
}

/// A connection that can be asked to take no more requests and end with those under way.
trait Drain: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<S, I> Drain for http1::Connection<I, S>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, I> Drain for http2::Connection<I, S, Streams>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    BrokenBody: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Lets hyper run the streams of an HTTP/2 connection as tasks that the drain waits for, each cut when it stalls.
#[derive(Debug, Clone)]
struct Streams {
    tasks: Tasks,
    stall_timeout: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.tasks.spawn(watch_stream(stream, self.stall_timeout));
    }
}

/// A request's head: bearer tokens and passwords of several KiB, `Range` headers of 16 KiB and more.
const HEAD_BYTES: usize = 64 * 1024;
/// In HTTP/2 every field counts 32 bytes more (RFC 9113, section 6.5.2).
const HEAD_LIST_BYTES: u32 = 64 * 1024 + 100 * 32;
/// Above the head's size: hyper's buffer, which also bounds what a body may be ahead of its socket.
const SLACK_BYTES: usize = 4 * 1024;
/// From the accept or the last answer to the end of the next head: cuts slow heads and idle connections alike.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once: well below the connections, so that clients who never finish theirs cannot take all of those.
const HANDSHAKES: usize = 1024;
const STREAMS: u32 = 128;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// For tasks that were cut to be gone.
const CUT_WAIT: Duration = Duration::from_secs(1);

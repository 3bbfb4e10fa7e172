//! Connections: HTTP/1.1 and HTTP/2 over whatever carries bytes, from the accept to the last one drained.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::body::ResponseBody;
use super::carrier::Outlet;
use super::file::{BUFFER, FileReads};
use super::linger::Lingering;
use super::listener::{Listener, prepare};
use super::refusal::Refusals;
use super::request_body::RequestBody;
use super::sending::Sending;
use super::stall::{self, StallGuard};
use super::streams::{Activity, Streams};
use super::tls::{ALPN_H2, Handshakes};
use crate::proxy::BrokenBody;
use crate::runtime::Tasks;
use crate::telemetry::{Counted, Metrics};

/// Answers requests; what the connections of one kind of listener have in common.
pub(super) trait Respond: Send + Sync + 'static {
    /// The answer to a request from `peer`, whose body, if any, need not be read.
    fn respond(
        &self,
        peer: &Peer,
        request: Parts,
        body: RequestBody,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// The other side of a connection, as far as an answer depends on it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Where the connection takes parts of files to send.
    pub(super) outlet: Option<Arc<Outlet>>,
}

/// The connections of some listeners that one [`Respond`] answers.
#[derive(Debug)]
pub(super) struct Connections<R> {
    responder: Arc<R>,
    tasks: Tasks,
    cut: CancellationToken,
    admission: Arc<Admission>,
    refusals: Refusals,
    /// Where they are counted, if anywhere.
    metrics: Option<Arc<Metrics>>,
    stall_timeout: Duration,
    /// By which parts of files get into memory, where answers have any.
    reads: Option<Arc<FileReads>>,
}

impl<R: Respond> Connections<R> {
    /// Connections, as many as `admission` lets in, as tasks of a child of `tasks`; counted in `metrics`. With `reads`,
    /// they send parts of files by themselves where they can.
    pub(super) fn new(
        responder: R,
        tasks: &Tasks,
        admission: Arc<Admission>,
        metrics: Option<Arc<Metrics>>,
        stall_timeout: Duration,
        reads: Option<Arc<FileReads>>,
    ) -> Arc<Self> {
        let tasks = tasks.child();
        Arc::new(Self {
            responder: Arc::new(responder),
            cut: CancellationToken::new(),
            admission,
            refusals: Refusals::new(&tasks, metrics.clone()),
            metrics,
            tasks,
            stall_timeout,
            reads,
        })
    }

    /// Accepts from `listener` as a task of `accepting` until that stops.
    pub(super) fn accept(
        self: &Arc<Self>,
        listener: Listener,
        tls: Option<Handshakes>,
        accepting: &Tasks,
    ) {
        let connections = Arc::clone(self);
        accepting.spawn_until_stop(async move {
            loop {
                let (stream, client) = listener.accept().await;
                let slot = match connections.admission.admit(client.ip()) {
                    Ok(slot) => slot,
                    Err(full) => {
                        // A handshake costs more than there is to say.
                        let told = tls.is_none().then_some(stream);
                        connections.refusals.refuse(client, full, told);
                        continue;
                    }
                };
                let (this, tls) = (Arc::clone(&connections), tls.clone());
                connections.tasks.spawn(async move {
                    let counted = this.metrics.as_ref();
                    let _counted = counted.map(|to| Counted::by(&to.downstream.connections));
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

    async fn connection(&self, stream: TcpStream, client: SocketAddr, tls: Option<Handshakes>) {
        prepare(&stream, self.stall_timeout);
        let mut peer = Peer {
            address: client,
            outlet: None,
        };
        // Boxed, each: a task has room for the largest of what it may come to, and most do the least.
        match (tls, &self.reads) {
            (Some(tls), _) => Box::pin(self.tls(self.guarded(stream), peer, tls)).await,
            (None, Some(reads)) if cfg!(target_os = "linux") => {
                let outlet = Arc::new(Outlet::default());
                let stream = Sending::new(stream, Arc::clone(&outlet), Arc::clone(reads));
                peer.outlet = Some(outlet);
                Box::pin(self.http1(self.guarded(stream), peer)).await;
            }
            (None, _) => Box::pin(self.http1(self.guarded(stream), peer)).await,
        }
    }

    fn guarded<S>(&self, stream: S) -> StallGuard<Lingering<S>> {
        StallGuard::new(Lingering::new(stream), self.stall_timeout)
    }

    async fn tls<S>(&self, stream: S, peer: Peer, tls: Handshakes)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stopping = self.tasks.stopping();
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
        match stopping.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => {
                if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
                    Box::pin(self.http2(stream, peer)).await;
                } else {
                    Box::pin(self.http1(stream, peer)).await;
                }
            }
            Some(Ok(Err(error))) => {
                tracing::debug!(client = %peer.address, %error, "tls handshake failed");
            }
            Some(Err(_)) => tracing::debug!(client = %peer.address, "tls handshake timed out"),
            None => {}
        }
    }

    fn http1<S>(&self, stream: S, peer: Peer) -> impl Future<Output = ()> + Send
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
            // Both have hyper queue what bodies give it: parts of files cannot be copied together with other bytes.
            .writev(true)
            .pipeline_flush(false);
        let client = peer.address;
        let connection = builder.serve_connection(TokioIo::new(stream), self.service(peer));
        self.drive(connection, client, None)
    }

    async fn http2<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let mut builder = http2::Builder::new(Streams {
            tasks: self.tasks.clone(),
            stall_timeout: self.stall_timeout,
            activity: Arc::clone(&activity),
        });
        builder
            .timer(TokioTimer::new())
            // Requests have no bodies worth a window.
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(256 * 1024)
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(HEAD_BYTES)
            .max_header_list_size(HEAD_LIST_BYTES)
            .max_pending_accept_reset_streams(UNSEEN_RESETS)
            .max_local_error_reset_streams(FAULTY_STREAMS)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let client = peer.address;
        let connection = builder.serve_connection(TokioIo::new(stream), self.service(peer));
        self.drive(connection, client, Some(&activity)).await;
    }

    fn service(
        &self,
        peer: Peer,
    ) -> impl HttpService<
        Incoming,
        ResBody = ResponseBody,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + use<R>,
    > + use<R> {
        let responder = Arc::clone(&self.responder);
        let peer = Arc::new(peer);
        service_fn(move |request: Request<Incoming>| {
            let (responder, peer) = (Arc::clone(&responder), Arc::clone(&peer));
            async move {
                let (head, body) = request.into_parts();
                let body = RequestBody::new(body);
                // Hardly anything here takes a body. In HTTP/1 its connection ends, rather than reading it to its end.
                let ends = head.version < Version::HTTP_2 && !body.is_over();
                // Boxed, since a connection has room for this all along, and most are idle.
                let mut response = Box::pin(responder.respond(&peer, head, body)).await;
                stall::is_answered();
                if ends {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok(response)
            }
        })
    }

    /// Runs a connection to its end, asking it to finish when the tasks are told to stop, or when it has streams and
    /// those of HTTP/2 are idle. HTTP/1 looks after that itself.
    async fn drive<C: Drain>(&self, connection: C, client: SocketAddr, streams: Option<&Activity>) {
        let mut connection = pin!(connection);
        let stopping = self.tasks.stopping();
        let mut asked = false;
        loop {
            let idle = if_some(streams, |streams| streams.idle_for(IDLE_TIMEOUT));
            let over = if_some(streams, |streams| streams.over_after(self.stall_timeout));
            let flooded = if_some(streams, Activity::flooded);
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
                () = idle, if !asked => {
                    asked = true;
                    connection.as_mut().finish();
                }
                // A client that does not go when asked, or takes nothing of what it was sent, is left.
                () = over, if asked => return,
                () = flooded => {
                    tracing::debug!(%client, "cut a connection that resets most of what it asks for");
                    return;
                }
                () = self.cut.cancelled() => return,
            }
        }
    }
}

/// What `future` makes of what is there; never, where there is nothing.
async fn if_some<'a, T, F: Future<Output = ()>>(
    value: Option<&'a T>,
    future: impl FnOnce(&'a T) -> F,
) {
    match value {
        Some(value) => future(value).await,
        None => std::future::pending().await,
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

/// A request's head: bearer tokens and passwords of several KiB, `Range` headers of 16 KiB and more.
pub(super) const HEAD_BYTES: usize = 64 * 1024 - 256;
/// In HTTP/2 every field counts 32 bytes more (RFC 9113, section 6.5.2).
const HEAD_LIST_BYTES: u32 = 64 * 1024 + 100 * 32;
/// Above the head's size: hyper's buffer. It also bounds what the body of a fetch under way may be ahead of its socket.
const SLACK_BYTES: usize = 2 * BUFFER - HEAD_BYTES;
/// From the accept or the last answer to the end of the next head: cuts slow heads and idle connections alike. Clients
/// keep idle connections for 90 s (Go) or less, and connect anew where we were first.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Without a stream, in HTTP/2.
const IDLE_TIMEOUT: Duration = HEADER_READ_TIMEOUT;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of a connection at once: a node pulls a dozen layers in a few parts each (RFC 9113, section 6.5.2, asks for
/// 100 or more).
const STREAMS: u32 = 128;
/// Streams that a client may reset before we have looked at them.
const UNSEEN_RESETS: usize = 32;
/// Streams that we may have to reset for what a client did wrong, before its connection is cut.
const FAULTY_STREAMS: usize = 256;
/// A client that does not answer a ping is gone.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// For tasks that were cut to be gone.
const CUT_WAIT: Duration = Duration::from_secs(1);

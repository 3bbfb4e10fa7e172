//! Sends requests, on connections that are kept from earlier ones or on fresh ones.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::body::{Body, Lease, Occupied, causes};
use super::connect::{Connector, Established};
use super::kept::{Http1, Http2, Kept, LOOK_TIME, Line};
use super::lane::{Lane, Lanes, Reader};
use super::{Origin, without_secrets};
use crate::runtime::Tasks;
use crate::upstream::Error;
use crate::upstream::failure::{Failure, Kind};

/// The HTTP/2 connection's window is as large as one can be, since streams that nobody reads would use up a smaller one
/// and halt all others. What may wait in memory is bounded by the streams' own windows, see [`super::lane`].
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const FRAME_SIZE: u32 = 64 << 10;

/// An HTTP/2 connection with requests under way is asked for a sign of life this often, and given up after that.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Less time than this says nothing of a server that did not answer in it.
const FAIR_TIME: Duration = Duration::from_secs(1);

/// A request to one URL. Not shown by `Debug`, since its headers and query may hold secrets.
#[derive(Clone)]
pub(in crate::upstream) struct Outgoing {
    /// Its method.
    pub(in crate::upstream) method: Method,
    /// Where it goes; the fragment is not sent.
    pub(in crate::upstream) url: Url,
    /// All headers but `Host`.
    pub(in crate::upstream) headers: HeaderMap,
    /// Its body; empty for `GET` and `HEAD`.
    pub(in crate::upstream) body: Bytes,
    /// Who reads its answer.
    pub(in crate::upstream) reader: Reader,
}

/// Sends requests of one upstream URL and keeps the connections.
#[derive(Debug)]
pub(in crate::upstream) struct Pool {
    connector: Connector,
    pub(super) tasks: Tasks,
    kept: Kept,
    lanes: Lanes,
    /// Whether the task that closes idle connections runs.
    closing: AtomicBool,
}

impl Pool {
    /// An empty pool. Connections run on `tasks`.
    pub(in crate::upstream) fn new(connector: Connector, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            connector,
            tasks,
            kept: Kept::default(),
            lanes: Lanes::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// The proxy that connections to `origin` go through, without user and password.
    pub(in crate::upstream) fn proxy_for(&self, origin: &Origin) -> Option<String> {
        self.connector.proxy_for(origin)
    }

    /// Sends `request`; returns when the answer's head is there. A kept connection that turns out to be dead costs one
    /// more try on a fresh one, so requests must be repeatable.
    pub(in crate::upstream) async fn send(
        self: &Arc<Self>,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let shown = without_secrets(&request.url);
        let origin = Origin::of(&request.url)
            .ok_or_else(|| Error::invalid(format!("{shown} is neither http nor https")))?;
        let lane = self.lanes.choose(request.reader);
        if let Some(line) = self.kept.take(&origin, &lane) {
            match self.exchange(&origin, line, request, deadline).await? {
                Ok(response) => return Ok(response),
                Err(error) if error.is_parse() => return Err(broken(&origin, &error)),
                Err(error) => {
                    tracing::debug!(%origin, %error, "kept connection is dead, asking again on a fresh one");
                    self.kept.forget_http2(&origin);
                }
            }
        }
        let began = Instant::now();
        let line = timeout_at(deadline, self.open(&origin, &lane)).await;
        let line = line.map_err(|_| {
            let message = format!("{origin} took no connection in time");
            Failure::unavailable(timed_out(began, Kind::Unreachable), message)
        })??;
        self.exchange(&origin, line, request, deadline)
            .await?
            .map_err(|error| broken(&origin, &error))
    }

    /// One request on one connection. The inner error is the connection's.
    async fn exchange(
        self: &Arc<Self>,
        origin: &Origin,
        line: Line,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<Result<Response<Body>, hyper::Error>, Failure> {
        let assembled = assemble(origin, &line, request)?;
        let began = Instant::now();
        if let Ok(answer) = timeout_at(deadline, self.ask(origin, line, assembled)).await {
            return Ok(answer);
        }
        // It may be the way there that is dead, not the server: then the kept connections are as well.
        self.kept.forget(origin);
        let message = format!("{} did not answer in time", without_secrets(&request.url));
        let kind = timed_out(began, Kind::Silent);
        Err(Failure::unavailable(kind, message))
    }

    async fn ask(
        self: &Arc<Self>,
        origin: &Origin,
        line: Line,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, hyper::Error> {
        let (answer, occupied) = match line {
            Line::Http2(mut line, lane) => {
                let answer = line.sender.send_request(request).await;
                (answer, Occupied::Stream(line.seat, lane))
            }
            Line::Http1(mut line) => {
                let answer = line.sender.send_request(request).await;
                let lease = Lease {
                    pool: Arc::clone(self),
                    origin: origin.clone(),
                    line,
                };
                (answer, Occupied::Connection(lease))
            }
        };
        Ok(answer?.map(|incoming| {
            let mut body = Body {
                incoming,
                occupied: Some(occupied),
            };
            body.release_at_end();
            body
        }))
    }

    /// A fresh connection. Where the origin is known to speak HTTP/2, one opens it for all who want one; who finds out
    /// that it does not, or takes none, lets the others go on by themselves.
    async fn open(self: &Arc<Self>, origin: &Origin, lane: &Lane) -> Result<Line, Failure> {
        let Some(opening) = self.kept.opening(origin) else {
            return self.connect(origin, lane).await;
        };
        let turn = opening.lock().await;
        if let Some(line) = self.kept.take(origin, lane) {
            return Ok(line);
        }
        if self.kept.opening(origin).is_none() {
            drop(turn);
            return self.connect(origin, lane).await;
        }
        let opened = self.connect(origin, lane).await;
        if !matches!(opened, Ok(Line::Http2(..))) {
            self.kept.unlearn_http2(origin);
        }
        opened
    }

    async fn connect(self: &Arc<Self>, origin: &Origin, lane: &Lane) -> Result<Line, Failure> {
        self.close_idle();
        let failed = |error: hyper::Error| {
            let message = format!("{origin} does not speak HTTP: {}", causes(&error));
            Failure::unavailable(Kind::Unreachable, message)
        };
        let Established {
            stream,
            http2,
            forwarder,
        } = self.connector.connect(origin).await?;
        let io = TokioIo::new(stream);
        if http2 {
            let width = lane.width();
            let (sender, driver) = http2::Builder::new(Executor(self.tasks.clone()))
                .timer(TokioTimer::new())
                .initial_stream_window_size(width.window())
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME_SIZE)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .handshake(io)
                .await
                .map_err(failed)?;
            self.drive(origin, driver);
            let line = Http2::new(sender, width);
            if !self.tasks.stopping().is_cancelled() {
                self.kept.keep_http2(origin, &line, lane);
            }
            Ok(Line::Http2(line, lane.clone()))
        } else {
            let (sender, driver) = http1::handshake(io).await.map_err(failed)?;
            self.drive(origin, driver);
            Ok(Line::Http1(Http1 { sender, forwarder }))
        }
    }

    /// Runs a connection until nobody holds it, or its other end closes it.
    fn drive<F>(&self, origin: &Origin, driver: F)
    where
        F: Future<Output = hyper::Result<()>> + Send + 'static,
    {
        let origin = origin.clone();
        self.tasks.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%origin, error = %causes(&error), "connection ended");
            }
        });
    }

    pub(super) fn put_back(&self, origin: Origin, line: Http1) {
        if self.tasks.stopping().is_cancelled() {
            return;
        }
        self.kept.keep_http1(origin, line);
    }

    /// Starts, once, the task that closes what has been idle for too long, and everything at shutdown.
    fn close_idle(self: &Arc<Self>) {
        if self.closing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, stopping) = (Arc::downgrade(self), self.tasks.stopping());
        self.tasks.spawn(async move {
            while timeout(LOOK_TIME, stopping.cancelled()).await.is_err() {
                let Some(pool) = pool.upgrade() else {
                    return;
                };
                pool.kept.close_old();
            }
            if let Some(pool) = pool.upgrade() {
                pool.kept.clear();
            }
        });
    }
}

/// What running out of time means after it began at this time.
fn timed_out(began: Instant, kind: Kind) -> Kind {
    if began.elapsed() < FAIR_TIME {
        Kind::Hurried
    } else {
        kind
    }
}

fn broken(origin: &Origin, error: &hyper::Error) -> Failure {
    let message = format!("{origin} broke off before it answered: {}", causes(error));
    // What is no HTTP will be none the next time.
    let kind = if error.is_parse() {
        Kind::Final
    } else {
        Kind::Broken
    };
    Failure::unavailable(kind, message)
}

/// The request in the form that this connection wants: HTTP/2 and forwarding proxies get the whole URL.
fn assemble(
    origin: &Origin,
    line: &Line,
    request: &Outgoing,
) -> Result<Request<Full<Bytes>>, Error> {
    let unusable = || {
        Error::invalid(format!(
            "{} is not a URL that can be sent",
            without_secrets(&request.url)
        ))
    };
    let target = &request.url[url::Position::BeforePath..url::Position::AfterQuery];
    let whole = match line {
        Line::Http2(..) => true,
        Line::Http1(line) => line.forwarder.is_some(),
    };
    let uri: Uri = if whole {
        format!("{origin}{target}")
            .parse()
            .map_err(|_| unusable())?
    } else {
        target.parse().map_err(|_| unusable())?
    };
    let mut assembled = Request::new(Full::new(request.body.clone()));
    *assembled.method_mut() = request.method.clone();
    *assembled.uri_mut() = uri;
    *assembled.headers_mut() = request.headers.clone();
    if let Line::Http1(line) = line {
        let host = HeaderValue::try_from(origin.authority()).map_err(|_| unusable())?;
        assembled.headers_mut().insert(HOST, host);
        if let Some(login) = line
            .forwarder
            .as_ref()
            .and_then(|proxy| proxy.authorization.clone())
        {
            assembled.headers_mut().insert(PROXY_AUTHORIZATION, login);
        }
    }
    Ok(assembled)
}

/// Runs what an HTTP/2 connection wants run.
#[derive(Clone)]
struct Executor(Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn(async move {
            future.await;
        });
    }
}

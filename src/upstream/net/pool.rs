//! Connections kept for the next request: many for HTTP/1.1, one for HTTP/2, per origin.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::connect::{Connector, Established};
use super::proxies::HttpProxy;
use super::{Origin, without_secrets};
use crate::runtime::Tasks;
use crate::upstream::Error;

/// Idle connections kept per origin, and for how long: below what servers and the networks between commonly keep.
const MAX_IDLE: usize = 32;
const IDLE_TIME: Duration = Duration::from_secs(45);

/// HTTP/2 windows: each stream may be this far ahead of its reader. The connection's is as large as one can be, since
/// streams that nobody reads would use up a smaller one and halt all others.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const FRAME_SIZE: u32 = 64 << 10;

/// An HTTP/2 connection with requests under way is asked for a sign of life this often, and given up after that.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A body nobody wants is read to its end if it is no longer than this, to keep its connection.
const DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

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
}

/// Sends requests of one upstream URL and keeps the connections.
#[derive(Debug)]
pub(in crate::upstream) struct Pool {
    connector: Connector,
    tasks: Tasks,
    slots: Mutex<HashMap<Origin, Slot>>,
    /// Whether the task that closes idle connections runs.
    kept: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Idle>,
    http2: Option<http2::SendRequest<Full<Bytes>>>,
}

#[derive(Debug)]
struct Idle {
    line: Http1,
    since: Instant,
}

/// An HTTP/1.1 connection; `forwarder` as in [`Established`].
#[derive(Debug)]
struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    forwarder: Option<HttpProxy>,
}

#[derive(Debug)]
enum Line {
    Http1(Http1),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Pool {
    /// An empty pool. Connections run on `tasks`.
    pub(in crate::upstream) fn new(connector: Connector, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            connector,
            tasks,
            slots: Mutex::default(),
            kept: AtomicBool::new(false),
        })
    }

    /// Sends `request`; returns when the answer's head is there. A kept connection that turns out to be dead costs one
    /// more try on a fresh one, so requests must be repeatable.
    pub(in crate::upstream) async fn send(
        self: &Arc<Self>,
        request: &Outgoing,
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        let shown = without_secrets(&request.url);
        let origin = Origin::of(&request.url)
            .ok_or_else(|| Error::invalid(format!("{shown} is neither http nor https")))?;
        if let Ok(result) = timeout_at(deadline, self.attempt(&origin, request)).await {
            return result;
        }
        // It may be the way there that is dead, not the server: then the kept connections are as well.
        self.slots.lock().remove(&origin);
        Err(Error::unavailable(format!(
            "{shown} did not answer in time"
        )))
    }

    async fn attempt(
        self: &Arc<Self>,
        origin: &Origin,
        request: &Outgoing,
    ) -> Result<Response<Body>, Error> {
        let broken = |error: &hyper::Error| {
            Error::unavailable(format!(
                "{origin} broke off before it answered: {}",
                causes(error)
            ))
        };
        if let Some(line) = self.take(origin) {
            match self.exchange(origin, line, request).await? {
                Ok(response) => return Ok(response),
                Err(error) if error.is_parse() => return Err(broken(&error)),
                Err(error) => {
                    tracing::debug!(%origin, %error, "kept connection is dead, asking again on a fresh one");
                    self.forget_http2(origin);
                }
            }
        }
        let line = self.connect(origin).await?;
        self.exchange(origin, line, request)
            .await?
            .map_err(|error| broken(&error))
    }

    async fn exchange(
        self: &Arc<Self>,
        origin: &Origin,
        line: Line,
        request: &Outgoing,
    ) -> Result<Result<Response<Body>, hyper::Error>, Error> {
        let request = assemble(origin, &line, request)?;
        let (answer, lease) = match line {
            Line::Http2(mut sender) => (sender.send_request(request).await, None),
            Line::Http1(mut line) => {
                let answer = line.sender.send_request(request).await;
                let lease = Lease {
                    pool: Arc::clone(self),
                    origin: origin.clone(),
                    line,
                };
                (answer, Some(lease))
            }
        };
        Ok(answer.map(|response| {
            response.map(|incoming| {
                let mut body = Body { incoming, lease };
                body.release_at_end();
                body
            })
        }))
    }

    /// A kept connection that seems to be alive.
    fn take(&self, origin: &Origin) -> Option<Line> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(origin)?;
        if let Some(sender) = slot.http2.as_ref().filter(|sender| !sender.is_closed()) {
            return Some(Line::Http2(sender.clone()));
        }
        slot.http2 = None;
        slot.drop_old();
        let line = slot.idle.pop().map(|idle| Line::Http1(idle.line));
        if slot.is_empty() {
            slots.remove(origin);
        }
        line
    }

    async fn connect(self: &Arc<Self>, origin: &Origin) -> Result<Line, Error> {
        self.keep();
        let failed = |error: hyper::Error| {
            Error::unavailable(format!("{origin} does not speak HTTP: {}", causes(&error)))
        };
        let Established {
            stream,
            http2,
            forwarder,
        } = self.connector.connect(origin).await?;
        let io = TokioIo::new(stream);
        if http2 {
            let (sender, driver) = http2::Builder::new(Executor(self.tasks.clone()))
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME_SIZE)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .handshake(io)
                .await
                .map_err(failed)?;
            self.drive(origin, driver);
            if !self.tasks.stopping().is_cancelled() {
                self.slots.lock().entry(origin.clone()).or_default().http2 = Some(sender.clone());
            }
            Ok(Line::Http2(sender))
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

    fn put_back(&self, origin: Origin, line: Http1) {
        if self.tasks.stopping().is_cancelled() {
            return;
        }
        let mut slots = self.slots.lock();
        let slot = slots.entry(origin).or_default();
        slot.drop_old();
        if slot.idle.len() < MAX_IDLE {
            slot.idle.push(Idle {
                line,
                since: Instant::now(),
            });
        }
    }

    fn forget_http2(&self, origin: &Origin) {
        if let Some(slot) = self.slots.lock().get_mut(origin) {
            slot.http2 = None;
        }
    }

    /// Starts, once, the task that closes what has been idle for too long, and everything at shutdown.
    fn keep(self: &Arc<Self>) {
        if self.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, stopping) = (Arc::downgrade(self), self.tasks.stopping());
        self.tasks.spawn(async move {
            let every = IDLE_TIME / 3;
            while timeout(every, stopping.cancelled()).await.is_err() && Self::close_old(&pool) {}
            if let Some(pool) = pool.upgrade() {
                pool.slots.lock().clear();
            }
        });
    }

    /// Closes what has been idle for too long; whether the pool still exists.
    fn close_old(pool: &Weak<Self>) -> bool {
        let Some(pool) = pool.upgrade() else {
            return false;
        };
        pool.slots.lock().retain(|_, slot| {
            slot.drop_old();
            !slot.is_empty()
        });
        true
    }
}

impl Slot {
    fn drop_old(&mut self) {
        self.idle
            .retain(|idle| !idle.line.sender.is_closed() && idle.since.elapsed() < IDLE_TIME);
        self.http2.take_if(|sender| sender.is_closed());
    }

    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.http2.is_none()
    }
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
        Line::Http2(_) => true,
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

/// An HTTP/1.1 connection that is busy with a body.
struct Lease {
    pool: Arc<Pool>,
    origin: Origin,
    line: Http1,
}

impl Lease {
    /// Returns the connection to the pool as soon as it is ready for another request.
    fn release(self) {
        let Self {
            pool,
            origin,
            mut line,
        } = self;
        if line.sender.is_ready() {
            pool.put_back(origin, line);
            return;
        }
        let tasks = pool.tasks.clone();
        let pool = Arc::downgrade(&pool);
        tasks.spawn_until_stop(async move {
            if line.sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                pool.put_back(origin, line);
            }
        });
    }
}

/// A body as it arrives. Dropped before its end, it takes its HTTP/1.1 connection with it.
pub(in crate::upstream) struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl Body {
    /// The next bytes, never empty; `None` at the end. Safe to cancel.
    pub(in crate::upstream) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            if self.release_at_end() {
                return None;
            }
            match self.incoming.frame().await {
                None => {
                    if let Some(lease) = self.lease.take() {
                        lease.release();
                    }
                    return None;
                }
                Some(Err(error)) => {
                    self.lease = None;
                    return Some(Err(causes(&error)));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.release_at_end();
                        return Some(Ok(data));
                    }
                }
            }
        }
    }

    /// Gives the body up; a short one is read to its end behind the caller's back, which keeps the connection.
    pub(in crate::upstream) fn discard(mut self) {
        let is_short = self
            .incoming
            .size_hint()
            .upper()
            .is_some_and(|len| len <= DRAIN_BYTES);
        let Some(lease) = self.lease.as_ref().filter(|_| is_short) else {
            return;
        };
        let tasks = lease.pool.tasks.clone();
        tasks.spawn_until_stop(async move {
            let to_end = async { while let Some(Ok(_)) = self.next().await {} };
            // A body that does not end in time is dropped with its connection.
            let _ = timeout(DRAIN_TIME, to_end).await;
        });
    }

    /// Frees the connection if the body has ended; whether it has.
    fn release_at_end(&mut self) -> bool {
        let ended = self.incoming.is_end_stream();
        if ended && let Some(lease) = self.lease.take() {
            lease.release();
        }
        ended
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
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

/// An error with what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

//! What becomes of connections beyond a limit: a short word where that is cheap, the end at once where it is not.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::admission::Full;
use super::answer::API_VERSION;
use super::body::ResponseBody;
use super::connection::HEAD_BYTES;
use super::linger::Lingering;
use super::reject::Rejection;
use super::request_id::{RequestId, X_REQUEST_ID};
use super::stall::StallGuard;
use crate::runtime::Tasks;
use crate::telemetry::Metrics;

/// Turns clients away, a few at once with an answer.
#[derive(Debug)]
pub(super) struct Refusals {
    tasks: Tasks,
    answers: Arc<Semaphore>,
    total: Mutex<Episode>,
    client: Mutex<Episode>,
    /// Where they are counted, if anywhere.
    metrics: Option<Arc<Metrics>>,
}

/// What the log has been told of refusals for one reason.
#[derive(Debug, Default)]
struct Episode {
    told: Option<Instant>,
    untold: u64,
}

impl Refusals {
    pub(super) fn new(tasks: &Tasks, metrics: Option<Arc<Metrics>>) -> Self {
        Self {
            tasks: tasks.clone(),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            total: Mutex::default(),
            client: Mutex::default(),
            metrics,
        }
    }

    /// Turns `client` away. With `stream` it is told why, once it has asked, if not too many are being told.
    pub(super) fn refuse(&self, client: SocketAddr, full: Full, stream: Option<TcpStream>) {
        self.note(client.ip(), full);
        let permit = Arc::clone(&self.answers).try_acquire_owned();
        if let (Some(stream), Ok(permit)) = (stream, permit) {
            self.tasks.spawn_until_stop(async move {
                let _ = tokio::time::timeout(ANSWER_TIME, answer(stream, full)).await;
                drop(permit);
            });
        }
    }

    fn note(&self, client: IpAddr, full: Full) {
        if let Some(metrics) = &self.metrics {
            metrics.downstream.refused(full.as_str());
        }
        let episode = match full {
            Full::Total => &self.total,
            Full::Client => &self.client,
        };
        let Some(refused) = episode.lock().one_more() else {
            return;
        };
        let client = client.to_canonical();
        match full {
            Full::Total => tracing::warn!(
                refused,
                "refused connections: max_connections are open; raise it, or look who holds them"
            ),
            Full::Client => tracing::warn!(
                %client, refused,
                "refused connections: a client has max_connections_per_client open; raise it if many stand behind this address"
            ),
        }
    }
}

impl Episode {
    /// Counts a refusal; at the first, and then once in a while, how many there were since the log was told.
    fn one_more(&mut self) -> Option<u64> {
        self.untold = self.untold.saturating_add(1);
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.untold))
    }
}

/// Reads one request and says that there is no room. Without waiting for the request, a client would take the answer
/// for a fault of the connection.
async fn answer(stream: TcpStream, full: Full) {
    let stream = StallGuard::new(Lingering::new(stream), ANSWER_TIME);
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(response(&request, full))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ANSWER_TIME)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // However it ends, it is over.
    let _ = connection.await;
}

fn response(request: &Request<Incoming>, full: Full) -> Response<ResponseBody> {
    let id = RequestId::of(request.headers());
    Rejection::full(full)
        .into_answer(&id)
        .with(X_REQUEST_ID, id.as_str())
        .with_static(API_VERSION, "registry/2.0")
        .into_unrecorded_response(request.method())
}

/// Told why at once; the rest are closed.
const ANSWERS: usize = 64;
/// For a refused client to ask, and to be told.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_hears_of_the_first_refusal_and_then_once_a_minute_of_the_rest() {
        let mut episode = Episode::default();
        assert_eq!(episode.one_more(), Some(1));
        for _ in 0..500 {
            assert_eq!(episode.one_more(), None);
        }
        tokio::time::advance(TELL_EVERY).await;
        assert_eq!(episode.one_more(), Some(501));
        assert_eq!(episode.one_more(), None);
    }
}

//! A client that takes nothing of its answer for too long is cut: the connection where its socket stays full, one
//! stream of it where HTTP/2 has no window for that stream.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose writes fail when the peer has taken no byte for `limit`.
///
/// The watch is here and not in the response's body, because a body is not even asked for bytes while the socket is
/// full. Progress is what the socket accepts, so with `TCP_NOTSENT_LOWAT` it is what the peer acknowledges, in steps of
/// half that mark.
#[derive(Debug)]
pub(super) struct StallGuard<S> {
    stream: S,
    limit: Duration,
    /// Made at the first full socket and reused.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the last write found the socket full, so that the timer counts.
    waiting: bool,
}

impl<S> StallGuard<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            timer: None,
            waiting: false,
        }
    }

    /// Lets a finished write pass; for one that waits, starts the timer or asks whether it has run out.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.waiting = false;
            return write;
        }
        let deadline = Instant::now() + self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client took no byte of its answer within stall_timeout",
            )));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

tokio::task_local! {
    /// Of the HTTP/2 stream that the current task serves.
    static STREAM: Arc<StreamProgress>;
}

/// How far the client of one HTTP/2 stream is with its body.
#[derive(Debug, Default)]
struct StreamProgress {
    /// When bytes were last handed over, if no more have been asked for since. hyper asks when the stream's window has
    /// room again.
    handed_over: Mutex<Option<Instant>>,
    /// Whether there is an answer.
    answered: AtomicBool,
}

/// Runs `stream`, which serves one HTTP/2 stream, until it ends, or drops it, and thereby resets it, when its client
/// has taken nothing of the body for `limit`. Whether the request was answered.
pub(super) async fn watch_stream<F: Future<Output = ()>>(stream: F, limit: Duration) -> bool {
    let progress = Arc::new(StreamProgress::default());
    let stalled = Arc::clone(&progress).stalled(limit);
    tokio::select! {
        () = STREAM.scope(Arc::clone(&progress), stream) => {}
        () = stalled => tracing::debug!("reset a stream whose client took nothing within stall_timeout"),
    }
    progress.answered.load(Ordering::Relaxed)
}

impl StreamProgress {
    /// Ends when the client has taken nothing for `limit`. Waiting for the body's source does not count.
    async fn stalled(self: Arc<Self>, limit: Duration) {
        loop {
            let since = *self.handed_over.lock();
            let until = since.unwrap_or_else(Instant::now) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Takes note, for the stream of this task if it serves one, that its request has an answer.
pub(super) fn is_answered() {
    let _ = STREAM.try_with(|progress| progress.answered.store(true, Ordering::Relaxed));
}

/// Takes note, for the stream of this task if it serves one, that its body is asked for bytes.
pub(super) fn body_is_asked() {
    let _ = STREAM.try_with(|progress| *progress.handed_over.lock() = None);
}

/// Takes note that its body has handed over bytes.
pub(super) fn body_has_given() {
    client_is_awaited(Instant::now());
}

/// Takes note that its body, though asked for bytes, waits for the client to take earlier ones, since then.
pub(super) fn client_is_awaited(since: Instant) {
    let _ = STREAM.try_with(|progress| *progress.handed_over.lock() = Some(since));
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_after_the_limit() {
        let (near, _far) = tokio::io::duplex(16);
        let mut guarded = StallGuard::new(near, LIMIT);
        let started = Instant::now();
        let error = guarded.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_now_and_then_is_not_cut() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut guarded = StallGuard::new(near, LIMIT);
        let reader = async move {
            let mut got = Vec::new();
            while got.len() < 160 {
                tokio::time::sleep(LIMIT / 2).await;
                let mut piece = [0; 16];
                let n = far.read(&mut piece).await.unwrap();
                got.extend_from_slice(&piece[..n]);
            }
            got.len()
        };
        let (written, read) = tokio::join!(guarded.write_all(&[7; 160]), reader);
        written.unwrap();
        assert_eq!(read, 160);
    }
}

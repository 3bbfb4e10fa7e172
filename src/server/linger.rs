//! The end of a connection whose client still sends: a socket closed with unread bytes resets, and the reset overtakes
//! the answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream whose shutdown says that no more will come, and then takes in and forgets what the peer still sends: for a
/// bounded time, a bounded number of bytes, and not at all where nothing is waiting to be read.
#[derive(Debug)]
pub(super) struct Lingering<S> {
    stream: S,
    end: End,
}

#[derive(Debug)]
enum End {
    /// It has not come.
    Open,
    /// Nothing more is sent; so many bytes are still taken in.
    Draining {
        left: usize,
        /// Since the first of them.
        timer: Option<Pin<Box<Sleep>>>,
    },
    Over,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            end: End::Open,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lingering<S> {
    /// Takes in what there is; ready when it is enough.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let End::Draining { left, timer } = &mut self.end else {
            return Poll::Ready(());
        };
        let mut bytes = [0; DRAIN_STEP];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len());
                    timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(DRAIN_TIME)));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    return match timer {
                        Some(timer) => timer.as_mut().poll(cx),
                        None => Poll::Ready(()),
                    };
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Open) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.end = End::Draining {
                left: DRAIN_BYTES,
                timer: None,
            };
        }
        ready!(self.poll_drain(cx));
        self.end = End::Over;
        Poll::Ready(Ok(()))
    }
}

/// Taken in after the end: more than a head, or a manifest that somebody wants to push here.
const DRAIN_BYTES: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// At once, on the stack.
const DRAIN_STEP: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_silent_is_not_waited_for() {
        let (near, mut far) = tokio::io::duplex(1024);
        let started = Instant::now();
        let mut stream = Lingering::new(near);
        stream.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_is_heard_to_its_end() {
        let (near, mut far) = tokio::io::duplex(1024);
        let sending = async move {
            far.write_all(&vec![0; 100_000]).await.unwrap();
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "told the end");
        };
        let mut stream = Lingering::new(near);
        let ending = async move {
            // Until the first bytes are there.
            tokio::task::yield_now().await;
            stream.shutdown().await.unwrap();
        };
        tokio::join!(sending, ending);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_for_ever_is_left_after_a_while() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"x").await.unwrap();
        let started = Instant::now();
        let mut stream = Lingering::new(near);
        stream.shutdown().await.unwrap();
        assert_eq!(started.elapsed().as_secs(), DRAIN_TIME.as_secs());

        let (near, mut far) = tokio::io::duplex(1024);
        let mut stream = Lingering::new(near);
        let sending = async move {
            let mut sent = 0;
            while far.write_all(&[0; 1024]).await.is_ok() {
                sent += 1024;
            }
            sent
        };
        let ending = async move {
            tokio::task::yield_now().await;
            stream.shutdown().await.unwrap();
        };
        let (sent, ()) = tokio::join!(sending, ending);
        assert!((DRAIN_BYTES..DRAIN_BYTES + 8192).contains(&sent), "{sent}");
    }
}

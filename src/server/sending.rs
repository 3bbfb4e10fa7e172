//! The stream under hyper that sends parts of files without their bytes passing through user space.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::carrier::{Next, Outlet};
use super::file::{self, FileReads};
use crate::flight::ports::FileSlice;

/// A connection that sends the parts in its outlet in place of their carriers, and all else as it is.
pub(super) struct Sending {
    stream: TcpStream,
    outlet: Arc<Outlet>,
    reads: Arc<FileReads>,
    /// Since when the client has let it wait.
    waiting_since: Option<Instant>,
    /// So many bytes of files from here on may have left memory while it waited.
    doubted: u64,
    /// Bytes that the next write needs on their way from the disk.
    awaited: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Sending {
    /// Sends what is put into `outlet`, for which `reads` waits for the disk.
    pub(super) fn new(stream: TcpStream, outlet: Arc<Outlet>, reads: Arc<FileReads>) -> Self {
        Self {
            stream,
            outlet,
            reads,
            waiting_since: None,
            doubted: 0,
            awaited: None,
        }
    }

    fn poll_slices(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.outlet.next(slices)? {
            Next::Memory(count) => {
                let stream = Pin::new(&mut self.stream);
                let sent = stream.poll_write_vectored(cx, &slices[..count]);
                self.note_wait(sent.is_pending());
                sent
            }
            Next::File(part) => {
                let sent = ready!(self.poll_part(cx, part));
                match &sent {
                    Ok(count) => {
                        self.outlet.advance(*count);
                        self.doubted = self.doubted.saturating_sub(*count as u64);
                    }
                    Err(error) if is_of_the_file(error) => {
                        tracing::warn!(%error, "a stored blob cannot be sent");
                    }
                    Err(_) => {}
                }
                Poll::Ready(sent)
            }
        }
    }

    /// Sends the first bytes of a part; says how many.
    fn poll_part(&mut self, cx: &mut Context<'_>, mut part: FileSlice) -> Poll<io::Result<usize>> {
        let mut was_awaited = false;
        loop {
            if let Some(awaited) = &mut self.awaited {
                let cached = ready!(awaited.as_mut().poll(cx));
                self.awaited = None;
                cached?;
                was_awaited = true;
            }
            let ready = self.stream.poll_write_ready(cx);
            self.note_wait(ready.is_pending());
            ready!(ready)?;
            if self.doubted > 0 {
                // A client this slow takes no more for now, and what is read too early is gone again by its next pause.
                part.range.end = part.range.end.min(part.range.start + DOUBTED_STEP);
                if !was_awaited && !file::is_cached(&part)? {
                    let (reads, part) = (Arc::clone(&self.reads), part.clone());
                    self.awaited = Some(Box::pin(async move { reads.cache(&part).await }));
                    continue;
                }
            }
            let sent = self
                .stream
                .try_io(Interest::WRITABLE, || send(&self.stream, &part));
            match sent {
                Ok(0) => return Poll::Ready(Err(file::too_short())),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ if is_unable(&error) => return self.poll_copy(cx, &part),
                    _ => return Poll::Ready(Err(error)),
                },
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Notes whether the client has it wait. What was in memory a moment ago still is; after a longer wait that is in doubt.
    fn note_wait(&mut self, is_waiting: bool) {
        if is_waiting {
            self.waiting_since.get_or_insert_with(Instant::now);
            return;
        }
        let waited = self.waiting_since.take().map(|since| since.elapsed());
        if waited.is_some_and(|waited| waited >= DOUBTED_AFTER) {
            self.doubted = self.outlet.len();
        }
    }

    /// Sends the first bytes of a part by way of memory, where the file system has no other (sendfile(2), "Notes").
    fn poll_copy(&mut self, cx: &mut Context<'_>, part: &FileSlice) -> Poll<io::Result<usize>> {
        let mut buffer = [0; COPY_STEP];
        let len = part.range.end.saturating_sub(part.range.start);
        let want = usize::try_from(len).map_or(COPY_STEP, |len| len.min(COPY_STEP));
        let buffer = &mut buffer[..want];
        match file::read_from_disk(&part.file, buffer, part.range.start)? {
            0 => Poll::Ready(Err(file::too_short())),
            got => Pin::new(&mut self.stream).poll_write(cx, &buffer[..got]),
        }
    }
}

/// Sends as much of a part as the socket takes.
#[cfg(target_os = "linux")]
fn send(stream: &TcpStream, part: &FileSlice) -> io::Result<usize> {
    let mut offset = part.range.start;
    let len = part.range.end.saturating_sub(part.range.start);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    Ok(rustix::fs::sendfile(
        stream,
        &*part.file,
        Some(&mut offset),
        len,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn send(_stream: &TcpStream, _part: &FileSlice) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether files of this kind cannot be sent that way.
fn is_unable(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, Unsupported};
    matches!(error.kind(), InvalidInput | Unsupported)
}

/// Whether it is not the client that failed.
fn is_of_the_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
}

impl AsyncRead for Sending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_slices(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_slices(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client's pause after which what was in memory before may have left it.
const DOUBTED_AFTER: Duration = Duration::from_secs(1);
/// Of that, what is sent, and read before that, at once: about what the kernel takes (`TCP_NOTSENT_LOWAT`).
const DOUBTED_STEP: u64 = 256 * 1024;
/// Copied at once, on the stack.
const COPY_STEP: usize = 16 * 1024;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::convert::Infallible;
    use std::fs::File;
    use std::io::Write;
    use std::ops::Range;
    use std::pin::pin;

    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    fn slice_of(file: Arc<File>, range: Range<u64>) -> FileSlice {
        FileSlice {
            file,
            range,
            hold: None,
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// What a client gets, from a hyper with or without vectored writes, of a body of text and of parts of a file.
    async fn answer_of(vectored: bool) -> String {
        let (near, mut far) = pair().await;
        let outlet = Arc::new(Outlet::default());
        let stream = Sending::new(near, Arc::clone(&outlet), FileReads::new());
        let file = file(b"from a file");
        let service = service_fn(move |_| {
            let part = |range| {
                let file = Arc::clone(&file);
                outlet.put(slice_of(file, range))
            };
            let pieces = [
                Ok(Bytes::from_static(b"<")),
                part(5..11),
                Ok(Bytes::from_static(b"><")),
                part(0..4),
                Ok(Bytes::from_static(b">")),
            ];
            let frames = pieces.map(|piece| piece.map(Frame::data));
            let body = StreamBody::new(futures_util::stream::iter(frames));
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let mut builder = http1::Builder::new();
        builder.writev(vectored).pipeline_flush(false);
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        let asking = async move {
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            far.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            let _ = far.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        };
        let (served, answer) = tokio::join!(serving, asking);
        assert_eq!(served.is_ok(), vectored);
        answer
    }

    #[tokio::test]
    async fn hyper_queues_what_stands_for_parts_of_files() {
        let answer = answer_of(true).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(
            body,
            "1\r\n<\r\n6\r\na file\r\n2\r\n><\r\n4\r\nfrom\r\n1\r\n>\r\n0\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn nothing_goes_out_of_a_body_that_hyper_has_copied() {
        assert_eq!(answer_of(false).await, "");
    }

    #[tokio::test]
    async fn a_part_goes_by_way_of_memory_where_there_is_no_other() {
        let (near, mut far) = pair().await;
        let bytes: Vec<u8> = (1..=250).cycle().take(COPY_STEP + 100).collect();
        let mut part = slice_of(file(&bytes), 3..bytes.len() as u64);
        let mut sending = Sending::new(near, Arc::default(), FileReads::new());
        while !part.range.is_empty() {
            let sent = std::future::poll_fn(|cx| sending.poll_copy(cx, &part)).await;
            part.range.start += sent.unwrap() as u64;
        }
        part.range.end += 1;
        let beyond = std::future::poll_fn(|cx| sending.poll_copy(cx, &part)).await;
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        drop(sending);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(got == bytes[3..]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_left_memory_while_the_client_waited_is_read_first() {
        let (near, mut far) = pair().await;
        let outlet = Arc::new(Outlet::default());
        let part = slice_of(file(b"gone for a while"), 0..16);
        part.file.sync_all().unwrap();
        let gone = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&part.file, 0, None, gone).unwrap();
        let carrier = outlet.put(part).unwrap();
        let mut sending = Sending::new(near, outlet, FileReads::new());
        sending.waiting_since = Some(Instant::now());
        tokio::time::advance(DOUBTED_AFTER).await;
        sending.write_all(&carrier).await.unwrap();
        drop(sending);
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "gone for a while");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_long_wait_a_part_goes_in_small_steps() {
        let (near, mut far) = pair().await;
        let outlet = Arc::new(Outlet::default());
        let bytes: Vec<u8> = (1..=250).cycle().take(500_000).collect();
        let part = slice_of(file(&bytes), 0..bytes.len() as u64);
        let carrier = outlet.put(part).unwrap();
        let mut sending = Sending::new(near, outlet, FileReads::new());
        sending.waiting_since = Some(Instant::now());
        tokio::time::advance(DOUBTED_AFTER).await;
        let sent = sending.write(&carrier).await.unwrap();
        assert!(sent as u64 <= DOUBTED_STEP, "{sent} bytes");
        // The wait is over, but of the rest nobody has seen yet whether it is in memory.
        assert_eq!(sending.doubted, (bytes.len() - sent) as u64);
        let mut got = vec![0; bytes.len()];
        let rest = sending.write_all(&carrier[sent..]);
        let (rest, read) = tokio::join!(rest, far.read_exact(&mut got));
        rest.and(read.map(|_| ())).unwrap();
        assert!(got == bytes);
        assert_eq!(sending.doubted, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_with_bytes_in_memory_puts_the_part_behind_them_in_doubt() {
        let (near, mut far) = pair().await;
        let outlet = Arc::new(Outlet::default());
        let carrier = outlet.put(slice_of(file(b"behind"), 0..6)).unwrap();
        let mut sending = Sending::new(near, outlet, FileReads::new());
        let memory = vec![1; 1024 * 1024];
        let slices = [IoSlice::new(&memory), IoSlice::new(&carrier)];
        while futures_util::poll!(pin!(sending.write_vectored(&slices))).is_ready() {}
        tokio::time::advance(DOUBTED_AFTER).await;
        let mut sink = vec![0; 1024 * 1024];
        loop {
            tokio::select! {
                sent = sending.write_vectored(&slices) => break assert!(sent.unwrap() > 0),
                _ = far.read(&mut sink) => {}
            }
        }
        assert_eq!(sending.doubted, 6);
    }
}

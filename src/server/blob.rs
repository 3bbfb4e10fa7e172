//! The bytes of a blob on their way into a body, from wherever they are: memory, a file, a fetch under way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::body::{Pieces, broken};
use super::carrier::{Outlet, WINDOW};
use super::file::FileReads;
use super::stall;
use crate::flight::ports::{Chunk, FileSlice};
use crate::proxy::{BlobAnswer, BlobReader, BrokenBody};

/// A piece of a body that a blob is the source of.
#[derive(Debug)]
pub(super) enum Segment {
    /// Bytes of our own.
    Text(Bytes),
    /// The whole blob; its size may not be known.
    Whole(Option<u64>),
    /// A part of it.
    Part(Range<u64>),
}

impl Segment {
    /// Its length, where known.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Text(bytes) => Some(bytes.len() as u64),
            Self::Whole(len) => *len,
            Self::Part(range) => Some(range.end.saturating_sub(range.start)),
        }
    }
}

/// Sends segments of a blob, in pieces of bounded size, leaving the thread to others now and then.
pub(super) struct BlobSender {
    blob: BlobAnswer,
    segments: VecDeque<Segment>,
    way: FileWay,
    current: Option<Reading>,
    /// Bytes since the thread was last left to others.
    run: usize,
}

/// How bytes of files get into a body.
pub(super) struct FileWay {
    reads: Arc<FileReads>,
    /// Of a connection that sends parts of files itself; without one they are copied.
    outlet: Option<Arc<Outlet>>,
    /// What is copied ahead of the socket, which for a slow client is our memory.
    copies: Arc<Semaphore>,
}

/// A segment under way.
struct Reading {
    reader: Box<dyn BlobReader>,
    /// Of a chunk that is in a file: what is still to be read.
    slice: Option<FileSlice>,
    /// Of the segment.
    left: Option<u64>,
    /// Whether the segment is not worth a system call of its own.
    is_small: bool,
}

impl FileWay {
    /// Files go through `outlet`, or as copies of which `ahead` wait for the socket at most.
    pub(super) fn new(reads: &Arc<FileReads>, outlet: Option<Arc<Outlet>>, ahead: usize) -> Self {
        Self {
            reads: Arc::clone(reads),
            outlet,
            copies: Arc::new(Semaphore::new(ahead)),
        }
    }

    /// The first bytes of a slice that is not empty, or what stands for them. Safe to cancel.
    async fn piece(&self, slice: &FileSlice, is_small: bool) -> io::Result<Bytes> {
        if is_small {
            // Together with others.
            return self.reads.read(slice, None).await;
        }
        let Some(outlet) = &self.outlet else {
            let turn = self.turn().await?;
            return self.reads.read(slice, Some(turn)).await;
        };
        let mut window = slice.clone();
        window.range.end = window.range.end.min(window.range.start + WINDOW as u64);
        self.reads.cache(&window).await?;
        outlet.put(window)
    }

    /// Waits for the client to take what was copied before.
    async fn turn(&self) -> io::Result<OwnedSemaphorePermit> {
        let since = Instant::now();
        let mut turn = pin!(Arc::clone(&self.copies).acquire_owned());
        let turn = poll_fn(|cx| {
            let turn = turn.as_mut().poll(cx);
            if turn.is_pending() {
                stall::client_is_awaited(since);
            }
            turn
        });
        turn.await.map_err(io::Error::other)
    }
}

impl BlobSender {
    /// Opens the first reader at once, so that the fetch knows of its client before the head goes out.
    pub(super) fn new(blob: BlobAnswer, segments: VecDeque<Segment>, way: FileWay) -> Self {
        let mut sender = Self {
            blob,
            segments,
            way,
            current: None,
            run: 0,
        };
        if !matches!(sender.segments.front(), Some(Segment::Text(_))) {
            sender.open_next();
        }
        sender
    }

    /// Where the bytes come from, for metrics; `None` while no reader is open.
    pub(super) fn source(&self) -> Option<&'static str> {
        self.current.as_ref().map(|reading| reading.reader.source())
    }

    /// All pieces, as they come about.
    pub(super) fn into_pieces(self) -> Pieces {
        Box::pin(stream::unfold(self, |mut sender| async move {
            let piece = sender.next().await?;
            if piece.is_err() {
                // What hyper still holds would be lost with the connection: let it go out first.
                tokio::task::yield_now().await;
            }
            Some((piece, sender))
        }))
    }

    async fn next(&mut self) -> Option<Result<Bytes, BrokenBody>> {
        if self.run >= RUN {
            self.run = 0;
            tokio::task::yield_now().await;
        }
        loop {
            if let Some(reading) = &mut self.current {
                match reading.next(&self.way).await {
                    Some(Ok(bytes)) => {
                        self.run += bytes.len();
                        return Some(Ok(bytes));
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.current = None,
                }
            }
            match self.open_next()? {
                Opened::Text(bytes) => return Some(Ok(bytes)),
                Opened::Reading => {}
                Opened::Nothing => {
                    return Some(Err(broken(
                        "no_content",
                        "the blob's bytes are not at hand",
                    )));
                }
            }
        }
    }

    /// Takes up the next segment; `None` behind the last.
    fn open_next(&mut self) -> Option<Opened> {
        let segment = self.segments.pop_front()?;
        let left = segment.len();
        let range = match segment {
            Segment::Text(bytes) => return Some(Opened::Text(bytes)),
            Segment::Whole(_) => None,
            Segment::Part(range) => Some(range),
        };
        let Some(reader) = self.blob.reader(range) else {
            return Some(Opened::Nothing);
        };
        self.current = Some(Reading {
            reader,
            slice: None,
            left,
            is_small: left.is_some_and(|left| left <= SMALL),
        });
        Some(Opened::Reading)
    }
}

enum Opened {
    Text(Bytes),
    Reading,
    /// The answer was for a `HEAD`.
    Nothing,
}

impl Reading {
    /// The next bytes of the segment; `None` when it is complete.
    async fn next(&mut self, way: &FileWay) -> Option<Result<Bytes, BrokenBody>> {
        loop {
            if let Some(slice) = self.slice.as_mut().filter(|slice| !slice.range.is_empty()) {
                let read = way.piece(slice, self.is_small).await;
                return Some(match read {
                    Ok(bytes) => {
                        slice.range.start += bytes.len() as u64;
                        self.count(bytes)
                    }
                    Err(error) => Err(BrokenBody {
                        reason: "disk",
                        message: format!("a stored blob cannot be read: {error}"),
                    }),
                });
            }
            if self.left == Some(0) {
                return None;
            }
            match self.reader.next().await {
                Some(Ok(Chunk::Bytes(bytes))) => return Some(self.count(bytes)),
                Some(Ok(Chunk::File(slice))) => self.slice = Some(slice),
                Some(Err(error)) => return Some(Err(error)),
                None if self.left.is_none() => return None,
                None => {
                    return Some(Err(broken("too_short", "the blob ended before its size")));
                }
            }
        }
    }

    fn count(&mut self, bytes: Bytes) -> Result<Bytes, BrokenBody> {
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| broken("too_long", "the blob has more bytes than its size"))?;
        }
        Ok(bytes)
    }
}

/// Bytes of a segment that go out together with the head or the text before them, by way of memory.
const SMALL: u64 = 16 * 1024;
/// Bytes after which one answer wants to leave the thread to others: bulk readers must not hold up small requests. Of parts of
/// files it does after two windows; of copies, when the one before the next has not gone out.
const RUN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs::File;
    use std::io::Write;
    use std::pin::Pin;
    use std::task::Poll;
    use std::time::Duration;

    use http::Response;
    use http_body_util::BodyExt;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::body::ResponseBody;
    use super::super::file::BUFFER;
    use super::super::sending::Sending;
    use super::*;
    use crate::flight::ports::BoxFuture;
    use crate::proxy::{BlobContent, CacheOutcome};

    const MIB: usize = 1024 * 1024;

    /// Four MiB in a file.
    #[derive(Debug, Clone)]
    struct InFile(Option<FileSlice>);

    impl InFile {
        fn new() -> Self {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![1; 4 * MIB]).unwrap();
            Self(Some(slice_of(file)))
        }
    }

    fn slice_of(file: File) -> FileSlice {
        FileSlice {
            file: Arc::new(file),
            range: 0..4 * MIB as u64,
            hold: None,
        }
    }

    impl BlobContent for InFile {
        fn reader(&self, _range: Option<Range<u64>>) -> Box<dyn BlobReader> {
            Box::new(self.clone())
        }
    }

    impl BlobReader for InFile {
        fn next(&mut self) -> BoxFuture<'_, Option<Result<Chunk, BrokenBody>>> {
            Box::pin(async { self.0.take().map(Chunk::File).map(Ok) })
        }

        fn source(&self) -> &'static str {
            "cache"
        }
    }

    /// Those four MiB.
    fn body(reads: &Arc<FileReads>, outlet: Option<Arc<Outlet>>, ahead: usize) -> ResponseBody {
        let (len, content) = (4 * MIB as u64, Arc::new(InFile::new()));
        let blob = BlobAnswer::new(Some(len), CacheOutcome::Hit, content);
        let way = FileWay::new(reads, outlet, ahead);
        let segments = VecDeque::from([Segment::Whole(Some(len))]);
        let sender = BlobSender::new(blob, segments, way);
        ResponseBody::stream(sender.into_pieces(), Some(len))
    }

    /// A connection that sends four MiB by `near` to who asks.
    fn serving(
        near: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        reads: &Arc<FileReads>,
        outlet: Option<Arc<Outlet>>,
    ) -> Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>> {
        let reads = Arc::clone(reads);
        let service = service_fn(move |_| {
            let body = body(&reads, outlet.clone(), 1);
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let mut builder = http1::Builder::new();
        builder.writev(true).pipeline_flush(false);
        Box::pin(builder.serve_connection(TokioIo::new(near), service))
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// How many bytes `far` gets in one turn of a connection that sends four MiB by `near`.
    async fn in_one_turn(
        near: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        far: &mut (impl AsyncRead + AsyncWrite + Unpin),
        outlet: Option<Arc<Outlet>>,
    ) -> usize {
        far.write_all(REQUEST).await.unwrap();
        let mut serving = serving(near, &FileReads::new(), outlet);
        let mut got = vec![0; 4 * MIB];
        let mut sent = 0;
        // The first turns may wait for the request.
        while sent == 0 {
            let turn = futures_util::poll!(serving.as_mut());
            assert!(turn.is_pending(), "{turn:?}");
            tokio::task::yield_now().await;
            while let Poll::Ready(read) = futures_util::poll!(std::pin::pin!(far.read(&mut got))) {
                sent += read.unwrap();
            }
        }
        sent
    }

    /// Beside the bytes of the body.
    const HEAD: usize = 200;

    #[tokio::test]
    async fn a_turn_of_the_thread_is_a_mib_of_parts_of_files() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let outlet = Arc::new(Outlet::default());
        let near = Sending::new(near.unwrap(), Arc::clone(&outlet), FileReads::new());
        let sent = in_one_turn(near, &mut far.unwrap().0, Some(outlet)).await;
        assert!(sent <= MIB + HEAD, "{sent} bytes");
    }

    #[tokio::test]
    async fn a_turn_of_the_thread_is_two_pieces_of_copied_bytes() {
        let (near, mut far) = tokio::io::duplex(4 * MIB);
        let sent = in_one_turn(near, &mut far, None).await;
        assert!((1..=2 * BUFFER + HEAD).contains(&sent), "{sent} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_reset_whose_client_does_not_take_what_was_copied() {
        // As when there are some that it does not take.
        let mut body = body(&FileReads::new(), None, 0);
        let stream = async move { _ = body.frame().await };
        let limit = Duration::from_secs(60);
        let watched = stall::watch_stream(stream, limit);
        tokio::time::timeout(2 * limit, watched).await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_client_has_one_copied_piece_ahead_of_its_socket_and_gets_all() {
        let (near, mut far) = tokio::io::duplex(1024);
        let reads = FileReads::new();
        let mut serving = serving(near, &reads, None);
        far.write_all(REQUEST).await.unwrap();
        let before = Arc::strong_count(&reads);
        for _ in 0..100 {
            assert!(futures_util::poll!(serving.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        // Who serves the request has one, and each piece one.
        assert_eq!(Arc::strong_count(&reads) - before, 2);
        let reading = async {
            let mut got = vec![0; 4 * MIB];
            far.read_exact(&mut got).await.unwrap();
        };
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            () = reading => {}
        }
    }
}

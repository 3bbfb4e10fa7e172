//! The registry that everything comes from: threads of this process that send from memory, count, throttle and delay.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::read_head;
use crate::content::Content;

/// How fast bodies are sent, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as they are taken.
    Free,
    /// All connections together, as over a narrow line.
    Together(f64),
    /// Each connection by itself, as some registries do.
    Each(f64),
}

/// A registry on loopback, without authentication. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What was asked of the origin since [`Origin::count`] was last called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Bytes of blobs and manifests that it sent.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Shared {
    content: Mutex<HashMap<String, Arc<Content>>>,
    pace: Mutex<Pace>,
    delay: Mutex<Duration>,
    /// Until when the narrow line is busy.
    busy: Mutex<Instant>,
    bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Origin {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            content: Mutex::default(),
            pace: Mutex::new(Pace::Free),
            delay: Mutex::default(),
            busy: Mutex::new(Instant::now()),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers `path` with `content` from now on.
    pub(crate) fn put(&self, path: String, content: &Arc<Content>) {
        self.shared.content.lock().insert(path, Arc::clone(content));
    }

    /// Sends bodies at this pace from now on.
    pub(crate) fn pace(&self, pace: Pace) {
        *self.shared.pace.lock() = pace;
    }

    /// Waits before each answer from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.shared.delay.lock() = delay;
    }

    /// What was asked since the last call.
    pub(crate) fn count(&self) -> Asked {
        Asked {
            bytes: self.shared.bytes.swap(0, Ordering::Relaxed),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(stream), shared) = (stream, Arc::clone(shared)) else {
            continue;
        };
        let thread = thread::Builder::new().stack_size(STACK);
        // A connection that breaks is the business of the one who broke it.
        let _ = thread.spawn(move || {
            let _ = serve(stream, &shared);
        });
    }
}

const STACK: usize = 256 * 1024;

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let Some(end) = read_head(&stream, &mut buffer)? else {
            return Ok(());
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        answer(&mut stream, &head, shared)?;
    }
}

fn answer(stream: &mut TcpStream, head: &str, shared: &Shared) -> io::Result<()> {
    let mut words = head.split([' ', '?', '\r']);
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let delay = *shared.delay.lock();
    if !delay.is_zero() {
        thread::sleep(delay);
    }
    if path == "/v2/" {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 2\r\n\r\n{}");
    }
    let content = shared.content.lock().get(path).cloned();
    let Some(content) = content else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let (range, status) = match range(head, content.len()) {
        Some(range) => {
            let last = range.end - 1;
            let status = format!(
                "206 Partial Content\r\nContent-Range: bytes {}-{last}/{}",
                range.start,
                content.len()
            );
            (range, status)
        }
        None => (0..content.len(), "200 OK".to_owned()),
    };
    let (digest, media_type) = (&content.digest, content.media_type);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\n\
         Docker-Content-Digest: {digest}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\
         Etag: \"{digest}\"\r\n\r\n",
        range.end - range.start
    );
    if method == "HEAD" {
        return stream.write_all(head.as_bytes());
    }
    if range.end - range.start <= SMALL {
        let mut answer = head.into_bytes();
        append(&mut answer, &content, range, shared);
        return stream.write_all(&answer);
    }
    stream.write_all(head.as_bytes())?;
    send(stream, &content, range, shared)
}

/// Bodies that go out together with their heads.
const SMALL: u64 = 64 * 1024;

fn append(answer: &mut Vec<u8>, content: &Content, mut range: Range<u64>, shared: &Shared) {
    while !range.is_empty() {
        let piece = content.piece(range.clone());
        shared
            .bytes
            .fetch_add(piece.len() as u64, Ordering::Relaxed);
        answer.extend_from_slice(piece);
        range.start += piece.len() as u64;
    }
}

fn send(
    stream: &mut TcpStream,
    content: &Content,
    mut range: Range<u64>,
    shared: &Shared,
) -> io::Result<()> {
    let pace = *shared.pace.lock();
    let mut own = Instant::now();
    while !range.is_empty() {
        let most = if pace == Pace::Free { FREE } else { PACED };
        let piece = content.piece(range.start..range.end.min(range.start + most));
        match pace {
            Pace::Free => {}
            Pace::Together(rate) => wait(turn(&mut shared.busy.lock(), piece.len(), rate)),
            Pace::Each(rate) => wait(turn(&mut own, piece.len(), rate)),
        }
        let sent = stream.write(piece)?;
        shared.bytes.fetch_add(sent as u64, Ordering::Relaxed);
        range.start += sent as u64;
    }
    Ok(())
}

const FREE: u64 = 1 << 20;
const PACED: u64 = 64 * 1024;

/// When bytes may be sent over a line that is busy until `busy`. Time that was lost a moment ago is made good.
fn turn(busy: &mut Instant, len: usize, rate: f64) -> Instant {
    let now = Instant::now();
    let oldest = now.checked_sub(Duration::from_millis(10)).unwrap_or(now);
    *busy = (*busy).max(oldest) + Duration::from_secs_f64(len as f64 / rate);
    *busy
}

fn wait(until: Instant) {
    thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// The one range that is asked for, if there is one that can be had.
fn range(head: &str, len: u64) -> Option<Range<u64>> {
    let line = head.lines().find(|line| {
        line.get(..6)
            .is_some_and(|name| name.eq_ignore_ascii_case("range:"))
    })?;
    let (first, last) = line[6..].trim().strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = last.parse().map_or(len, |last: u64| len.min(last + 1));
    (first < end).then_some(first..end)
}

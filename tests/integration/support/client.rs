//! An HTTP/1.1 client without a library: it sends what it is told to, letter by letter, and gives back what was on the
//! wire. It can read a little, wait, vanish, and tell a body that ended from one that broke off.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use layby::oci::{Algorithm, Digest, Hasher};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::soon;
use crate::fake::Content;

/// A request, written out.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: String,
    host: Option<String>,
}

impl Request {
    /// `GET target`.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    /// `HEAD target`.
    pub(crate) fn head(target: impl Into<String>) -> Self {
        Self::new("HEAD", target)
    }

    /// Any method.
    pub(crate) fn new(method: &str, target: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            headers: String::new(),
            host: None,
        }
    }

    /// One more header, as written.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.headers, "{name}: {value}\r\n");
        self
    }

    /// `Range: bytes=…`.
    pub(crate) fn range(self, range: &str) -> Self {
        self.header("Range", &format!("bytes={range}"))
    }

    /// This `Host` instead of the address.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sends it on a new connection and reads the whole answer.
    pub(crate) async fn send_to(&self, address: SocketAddr) -> Reply {
        let mut wire = Wire::connect(address).await;
        wire.ask(self).await
    }

    fn text(&self, address: SocketAddr) -> String {
        let host = self.host.clone().unwrap_or_else(|| address.to_string());
        let Self {
            method,
            target,
            headers,
            ..
        } = self;
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
    }
}

/// Asks for `target` on a new connection.
pub(crate) async fn get(address: SocketAddr, target: impl Into<String>) -> Reply {
    Request::get(target).send_to(address).await
}

/// Asks for a blob on a new connection, and hashes it without keeping it.
pub(crate) async fn download(address: SocketAddr, target: impl Into<String>) -> Download {
    let mut wire = Wire::connect(address).await;
    wire.send(&Request::get(target)).await;
    let head = wire.head().await;
    wire.hash_rest(head).await
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    /// All of it as it came, up to the empty line.
    pub(crate) raw: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn parse(raw: String) -> Self {
        let mut lines = raw.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {first}"));
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            status,
            raw,
            headers,
        }
    }

    /// The values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter();
        named
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a header that comes at most once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} more than once: {}", self.raw);
        all.first().copied()
    }

    /// `Content-Length`.
    pub(crate) fn length(&self) -> Option<u64> {
        self.get("content-length")
            .map(|text| text.parse().expect("a number"))
    }

    /// Status and headers without what differs from one answer to the next.
    pub(crate) fn comparable(&self) -> (u16, Vec<(String, String)>) {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !matches!(
                name.as_str(),
                "date" | "x-request-id" | "cache-status" | "age"
            )
        });
        headers.sort();
        (self.status, headers)
    }
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As announced: all bytes came.
    Complete,
    /// The connection ended before.
    Broken,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its head.
    pub(crate) head: Head,
    /// All bytes of the body that came.
    pub(crate) body: Bytes,
    /// How it ended.
    pub(crate) end: End,
}

impl Reply {
    /// Status code.
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The first error's code.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        json["errors"][0]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {json}"))
            .to_owned()
    }

    /// Fails unless this is a complete answer with this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{}\n{}", self.head.raw, self.text());
        assert_eq!(self.end, End::Complete, "{}", self.head.raw);
        self
    }
}

/// A body that was hashed and not kept.
#[derive(Debug)]
pub(crate) struct Download {
    /// Its head.
    pub(crate) head: Head,
    /// Number of bytes.
    pub(crate) len: u64,
    /// What they hash to.
    pub(crate) digest: Digest,
    /// The first of them, for messages.
    start: Bytes,
    /// How it ended.
    pub(crate) end: End,
}

impl Download {
    /// Fails unless this is all of a blob, and right.
    #[track_caller]
    pub(crate) fn expect(&self, content: &Content) {
        let whole = self.is_whole(content.digest());
        assert!(whole, "not {}: {self}", content.digest());
    }

    /// Whether this is all of a blob, and right.
    pub(crate) fn is_whole(&self, digest: &Digest) -> bool {
        self.head.status == 200 && self.end == End::Complete && self.digest == *digest
    }

    /// Whether a client takes this for all of a blob although it is not: what must never be.
    pub(crate) fn is_a_lie(&self, digest: &Digest) -> bool {
        self.head.status == 200 && self.end == End::Complete && self.digest != *digest
    }
}

impl std::fmt::Display for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { head, len, end, .. } = self;
        write!(f, "{}\n{len} bytes, {end:?}", head.raw)?;
        match head.status {
            200 | 206 => Ok(()),
            _ => write!(f, "\n{}", String::from_utf8_lossy(&self.start)),
        }
    }
}

/// A connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    address: SocketAddr,
    buffer: BytesMut,
    left: Left,
    is_head: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// So many bytes of the current chunk.
    Chunks(u64),
    UntilEnd,
    Ended(End),
}

impl Wire {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let tcp = soon("connection", TcpStream::connect(address)).await;
        Self::over(tcp.expect("connects"), address)
    }

    /// Over a connection that is there.
    pub(crate) fn of(tcp: TcpStream) -> Self {
        let address = tcp
            .peer_addr()
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self::over(tcp, address)
    }

    /// Connects with so small a buffer that what is not read stays with the server.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(16 * 1024)
            .expect("a small buffer");
        let tcp = soon("connection", socket.connect(address)).await;
        Self::over(tcp.expect("connects"), address)
    }

    /// Connects with TLS as `localhost`.
    pub(crate) async fn connect_tls(
        address: SocketAddr,
        config: Arc<rustls::ClientConfig>,
    ) -> (Self, Option<Vec<u8>>) {
        let tcp = TcpStream::connect(address).await.expect("connects");
        let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(config);
        let tls = soon("handshake", connector.connect(name, tcp)).await;
        let tls = tls.expect("a handshake");
        let protocol = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        (Self::over(tls, address), protocol)
    }

    fn over(stream: impl Stream + 'static, address: SocketAddr) -> Self {
        Self {
            stream: Box::new(stream),
            address,
            buffer: BytesMut::new(),
            left: Left::Ended(End::Complete),
            is_head: false,
        }
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: &Request) {
        self.is_head = request.method == "HEAD";
        self.send_raw(request.text(self.address).as_bytes()).await;
    }

    /// Sends a request to a server that may be gone; whether it was there.
    pub(crate) async fn try_send(&mut self, request: &Request) -> bool {
        self.is_head = request.method == "HEAD";
        let text = request.text(self.address);
        self.stream.write_all(text.as_bytes()).await.is_ok()
    }

    /// Sends these bytes.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        soon("sending", self.stream.write_all(bytes))
            .await
            .expect("sends");
        soon("sending", self.stream.flush()).await.expect("sends");
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> Reply {
        self.send(request).await;
        let head = self.head().await;
        self.rest(head).await
    }

    /// Reads the head of an answer; fails where the connection ends first.
    pub(crate) async fn head(&mut self) -> Head {
        self.try_head().await.expect("an answer")
    }

    /// Reads the head of an answer; `None` where the connection ends first.
    pub(crate) async fn try_head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                return None;
            }
        };
        let raw = String::from_utf8(self.buffer.split_to(end).to_vec()).expect("an ASCII head");
        self.buffer.advance(4);
        let head = Head::parse(raw);
        let chunked = head.get("transfer-encoding").is_some();
        self.left = match head.length() {
            _ if self.is_head || matches!(head.status, 204 | 304) => Left::Ended(End::Complete),
            Some(0) => Left::Ended(End::Complete),
            Some(len) => Left::Bytes(len),
            None if chunked => Left::Chunks(0),
            None => Left::UntilEnd,
        };
        Some(head)
    }

    /// The next bytes of the body, at most `max`; `None` at its end.
    pub(crate) async fn some(&mut self, max: u64) -> Option<Bytes> {
        loop {
            let limit = match self.left {
                Left::Ended(_) => return None,
                Left::Chunks(0) => {
                    self.next_chunk().await;
                    continue;
                }
                Left::Bytes(left) | Left::Chunks(left) => left.min(max),
                Left::UntilEnd => max,
            };
            if self.buffer.is_empty() && !self.fill().await {
                let complete = self.left == Left::UntilEnd;
                self.left = Left::Ended(if complete { End::Complete } else { End::Broken });
                return None;
            }
            let take = self
                .buffer
                .len()
                .min(usize::try_from(limit).unwrap_or(usize::MAX));
            let bytes = self.buffer.split_to(take).freeze();
            self.left = match self.left {
                Left::Bytes(left) if left == take as u64 => Left::Ended(End::Complete),
                Left::Bytes(left) => Left::Bytes(left - take as u64),
                Left::Chunks(left) => {
                    let left = left - take as u64;
                    if left == 0 {
                        self.skip(2).await;
                    }
                    Left::Chunks(left)
                }
                other => other,
            };
            return Some(bytes);
        }
    }

    /// Exactly `len` bytes of the body; fails where there are fewer.
    pub(crate) async fn exactly(&mut self, len: u64) -> Bytes {
        let mut bytes = BytesMut::new();
        while (bytes.len() as u64) < len {
            match self.some(len - bytes.len() as u64).await {
                Some(more) => bytes.extend_from_slice(&more),
                None => panic!("the body ended after {} of {len} bytes", bytes.len()),
            }
        }
        bytes.freeze()
    }

    /// Whether a byte of the body is there to be read at this moment.
    pub(crate) fn has_more_now(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let read = self.stream.read_buf(&mut self.buffer);
        let read = std::pin::pin!(read);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match Future::poll(read, &mut context) {
            std::task::Poll::Ready(Ok(count)) => count > 0,
            _ => false,
        }
    }

    /// The rest of the body.
    pub(crate) async fn rest(&mut self, head: Head) -> Reply {
        let mut body = BytesMut::new();
        while let Some(bytes) = self.some(u64::MAX).await {
            body.extend_from_slice(&bytes);
        }
        Reply {
            head,
            body: body.freeze(),
            end: self.ended(),
        }
    }

    /// The rest of the body, hashed and not kept.
    pub(crate) async fn hash_rest(&mut self, head: Head) -> Download {
        let mut hasher = Hasher::new(Algorithm::Sha256).expect("sha256 can be computed");
        let (mut len, mut start) = (0, Bytes::new());
        while let Some(bytes) = self.some(u64::MAX).await {
            if len == 0 {
                start = bytes.slice(..bytes.len().min(500));
            }
            hasher.update(&bytes);
            len += bytes.len() as u64;
        }
        Download {
            head,
            len,
            digest: hasher.finish(),
            start,
            end: self.ended(),
        }
    }

    /// How the body ended.
    pub(crate) fn ended(&self) -> End {
        match self.left {
            Left::Ended(end) => end,
            _ => panic!("the body has not ended"),
        }
    }

    /// Whether the server has ended the connection, with nothing more said.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    async fn next_chunk(&mut self) {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                break end;
            }
            if !self.fill().await {
                self.left = Left::Ended(End::Broken);
                return;
            }
        };
        let line = self.buffer.split_to(end + 2);
        let text = std::str::from_utf8(&line[..end]).expect("a chunk's size");
        let size = u64::from_str_radix(text.trim(), 16).expect("a chunk's size");
        if size == 0 {
            self.skip(2).await;
            self.left = Left::Ended(End::Complete);
        } else {
            self.left = Left::Chunks(size);
        }
    }

    async fn skip(&mut self, count: usize) {
        while self.buffer.len() < count && self.fill().await {}
        self.buffer.advance(count.min(self.buffer.len()));
    }

    /// Reads more; whether there was any. A reset is an end.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(64 * 1024);
        let read = soon("bytes from layby", self.stream.read_buf(&mut self.buffer)).await;
        match read {
            Ok(count) => count > 0,
            Err(error) if is_end(&error) => false,
            Err(error) => panic!("cannot read: {error}"),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    )
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

//! An HTTP/1.1 client without a library: it sends what it is told to, letter by letter, and gives back what was on the
//! wire. It can read a little, wait, vanish, and tell a body that ended from one that broke off.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use layby::oci::{Algorithm, Hasher};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::message::{Download, End, Head, Reply, Request};
use super::soon;
use crate::fake::Content;

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

/// Asks for a blob on a new connection, and compares it with what it should be as it comes, which costs less than to hash
/// it; fails unless all of it comes and is right.
pub(crate) async fn pull(address: SocketAddr, target: impl Into<String>, content: &Content) {
    let mut wire = Wire::connect(address).await;
    wire.send(&Request::get(target)).await;
    let head = wire.head().await;
    assert_eq!(head.status, 200, "{}", head.raw);
    let at = wire.compare_rest(content, 0).await;
    let ended = (at, wire.ended());
    assert_eq!(ended, (content.len(), End::Complete), "{}", head.raw);
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

    /// Connects from this address of the loopback network.
    pub(crate) async fn connect_from(client: Ipv4Addr, address: SocketAddr) -> Self {
        Self::connect_by(&|_| Ok(()), client, address).await
    }

    /// Connects with so small a buffer that what is not read stays with the server.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        Self::connect_narrow_from(Ipv4Addr::LOCALHOST, address).await
    }

    /// The same, from this address of the loopback network.
    pub(crate) async fn connect_narrow_from(client: Ipv4Addr, address: SocketAddr) -> Self {
        let narrow = |socket: &TcpSocket| socket.set_recv_buffer_size(16 * 1024);
        Self::connect_by(&narrow, client, address).await
    }

    async fn connect_by(
        prepare: &(dyn Fn(&TcpSocket) -> io::Result<()> + Sync),
        client: Ipv4Addr,
        address: SocketAddr,
    ) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        prepare(&socket).expect("a socket can be set up");
        socket.bind((client, 0).into()).expect("an address");
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
        self.is_head = request.is_head();
        self.send_raw(request.text(self.address).as_bytes()).await;
    }

    /// Sends a request to a server that may be gone; whether it was there.
    pub(crate) async fn try_send(&mut self, request: &Request) -> bool {
        self.is_head = request.is_head();
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
        self.hash_rest_after(head, &[]).await
    }

    /// The same, where the first bytes were read before.
    pub(crate) async fn hash_rest_after(&mut self, head: Head, first: &[u8]) -> Download {
        let mut hasher = Hasher::new(Algorithm::Sha256).expect("sha256 can be computed");
        hasher.update(first);
        let mut len = first.len() as u64;
        let mut start = Bytes::copy_from_slice(&first[..first.len().min(500)]);
        while let Some(bytes) = self.some(u64::MAX).await {
            if start.is_empty() {
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

    /// Compares the rest of the body with `content` from `at` on, and returns where it ended; fails where a byte is
    /// another.
    pub(crate) async fn compare_rest(&mut self, content: &Content, mut at: u64) -> u64 {
        while let Some(bytes) = self.some(u64::MAX).await {
            let end = at + bytes.len() as u64;
            assert!(end <= content.len(), "more than {}", content.digest());
            let is_right = bytes == content.read(at..end);
            assert!(
                is_right,
                "wrong between {at} and {end} of {}",
                content.digest()
            );
            at = end;
        }
        at
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

//! A client that costs little: blocking sockets, a head in one receive, bodies that the kernel throws away.
//!
//! `MSG_TRUNC` on a TCP socket takes bytes off it without copying them. Where bodies must be looked at, they are read
//! and hashed.

mod load;
mod slow;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use sha2::{Digest as _, Sha256};

pub(crate) use load::{Requests, Volume, herd, many, requests, stream};
pub(crate) use slow::SlowReaders;

use crate::Result;
use crate::content::{self, Content};

/// Where a contender listens.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// For one that speaks TLS there.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A connection that is kept for the next request.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    /// The head, and what came with it.
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes of the body.
    pub(crate) len: u64,
}

/// One body that was pulled over a connection of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull {
    /// From before connecting to the last byte.
    pub(crate) time: Duration,
    /// From before connecting to the first byte of the body.
    pub(crate) first_byte: Duration,
}

/// What is done with a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bodies {
    /// It is thrown away.
    Discard,
    /// It must be the content that was asked for.
    Hash,
}

impl Connection {
    pub(crate) fn open(target: &Target) -> Result<Self> {
        let tcp = TcpStream::connect(target.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let stream = match &target.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::from(target.address.ip());
                let session = ClientConnection::new(Arc::clone(config), name)?;
                Stream::Tls(Box::new(StreamOwned::new(session, tcp)))
            }
        };
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(HEAD),
            scratch: Vec::new(),
        })
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    /// Sends a request that [`request`] made.
    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.write_all(request),
            Stream::Tls(tls) => tls.write_all(request),
        }
    }

    /// Reads the head of an answer. What came of the body is kept for the calls that follow.
    pub(crate) fn head(&mut self) -> Result<Head> {
        let end = match &mut self.stream {
            Stream::Plain(tcp) => read_head(&*tcp, &mut self.buffer)?,
            Stream::Tls(tls) => read_head(&mut **tls, &mut self.buffer)?,
        };
        let end = end.ok_or("the connection was closed instead of an answer")?;
        let head = parse(&self.buffer[..end]);
        self.buffer.drain(..end);
        head.ok_or_else(|| "an answer without status or length".into())
    }

    /// Reads the body of `head` and does with it what `bodies` says; `progress` gets the number of bytes of each piece and
    /// may end it early with `false`.
    pub(crate) fn body(
        &mut self,
        head: Head,
        content: &Content,
        bodies: Bodies,
        progress: impl FnMut(u64) -> bool,
    ) -> Result<()> {
        match bodies {
            Bodies::Discard => Ok(self.discard(head.len, progress)?),
            Bodies::Hash => {
                let mut hasher = Sha256::new();
                self.each(head.len, |piece| hasher.update(piece), progress)?;
                let found = content::name(&hasher.finalize());
                if found == content.digest {
                    Ok(())
                } else {
                    Err(format!("asked for {}, got {found}", content.digest).into())
                }
            }
        }
    }

    fn discard(&mut self, len: u64, mut progress: impl FnMut(u64) -> bool) -> io::Result<()> {
        if let Stream::Tls(_) = self.stream {
            return self.each(len, |_| {}, progress);
        }
        let mut left = self.take_early(len, |_| {});
        if left < len && !progress(len - left) {
            return Ok(());
        }
        while left > 0 {
            let got = self.discard_some(left)?;
            left -= got;
            if !progress(got) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Throws away up to `most` bytes, on a plain connection.
    fn discard_some(&mut self, most: u64) -> io::Result<u64> {
        let Stream::Plain(tcp) = &self.stream else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.scratch.resize(PIECE, 0);
        let most = most.min(PIECE as u64) as usize;
        let (_, got) = recv(tcp, &mut self.scratch[..most], RecvFlags::TRUNC)?;
        some(got)
    }

    /// Reads `len` bytes of a body through this process.
    fn each(
        &mut self,
        len: u64,
        mut take: impl FnMut(&[u8]),
        mut progress: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        let mut left = self.take_early(len, &mut take);
        if left < len && !progress(len - left) {
            return Ok(());
        }
        self.scratch.resize(PIECE, 0);
        while left > 0 {
            let most = left.min(PIECE as u64) as usize;
            let piece = &mut self.scratch[..most];
            let got = match &mut self.stream {
                Stream::Plain(tcp) => tcp.read(piece)?,
                Stream::Tls(tls) => tls.read(piece)?,
            };
            take(&piece[..got]);
            left -= some(got)?;
            if !progress(got as u64) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands over what came with the head; returns how much is left of `len`.
    fn take_early(&mut self, len: u64, mut take: impl FnMut(&[u8])) -> u64 {
        let early = len.min(self.buffer.len() as u64) as usize;
        take(&self.buffer[..early]);
        self.buffer.drain(..early);
        len - early as u64
    }

    /// Asks for `content` and reads all of it.
    pub(crate) fn get(&mut self, request: &[u8], content: &Content, bodies: Bodies) -> Result<()> {
        self.send(request)?;
        let head = self.head()?.of(content)?;
        self.body(head, content, bodies, |_| true)
    }
}

impl Head {
    /// This head, if it is one of all of `content`.
    pub(crate) fn of(self, content: &Content) -> Result<Self> {
        if self.status == 200 && self.len == content.len() {
            return Ok(self);
        }
        let (status, len) = (self.status, self.len);
        Err(format!("{}: status {status}, {len} bytes", content.digest).into())
    }
}

/// Pulls `content` over a new connection, as a client does that has just started.
pub(crate) fn pull(target: &Target, path: &str, content: &Content, bodies: Bodies) -> Result<Pull> {
    let started = Instant::now();
    let mut connection = Connection::open(target)?;
    connection.send(&request(target, path, None))?;
    let head = connection.head()?.of(content)?;
    let mut first_byte = None;
    connection.body(head, content, bodies, |_| {
        first_byte.get_or_insert_with(|| started.elapsed());
        true
    })?;
    let time = started.elapsed();
    Ok(Pull {
        time,
        first_byte: first_byte.unwrap_or(time),
    })
}

/// A `GET` with the `Accept` that manifests need.
pub(crate) fn request(target: &Target, path: &str, from: Option<u64>) -> Vec<u8> {
    let range = from.map_or_else(String::new, |from| format!("Range: bytes={from}-\r\n"));
    let (address, manifest) = (target.address, content::MANIFEST);
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {manifest}\r\n{range}\r\n")
        .into_bytes()
}

/// Reads until `buffer` starts with a whole head; where it ends, or `None` if the connection ended before it began. What
/// cannot become one, as when TLS is spoken to a plain port, is an error at once.
pub(crate) fn read_head(mut stream: impl Read, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        let end = buffer.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            return Ok(Some(end + 4));
        }
        let filled = buffer.len();
        buffer.resize(filled + HEAD, 0);
        let got = stream.read(&mut buffer[filled..])?;
        buffer.truncate(filled + got);
        if buffer
            .first()
            .is_some_and(|first| !first.is_ascii_uppercase())
        {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match got {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

fn parse(head: &[u8]) -> Option<Head> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, len) = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    let len = len.trim().parse().ok()?;
    Some(Head { status, len })
}

fn some(got: usize) -> io::Result<u64> {
    match got {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        got => Ok(got as u64),
    }
}

/// What is read at once where a head is expected: with a manifest, all of it.
const HEAD: usize = 8 * 1024;

/// What is taken off a socket at once.
const PIECE: usize = 1 << 20;

/// Without a byte.
const PATIENCE: Duration = Duration::from_secs(120);

//! A client of bytes: writes what it is told and reads what comes, knowing just enough to tell a whole body from a
//! broken one.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

pub(super) struct Wire {
    stream: BufReader<TcpStream>,
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the body ended as its head had announced.
    pub(super) whole: bool,
}

impl Wire {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Connects from this address of the loopback network.
    pub(super) async fn connect_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        Self {
            stream: BufReader::new(socket.connect(address).await.unwrap()),
        }
    }

    /// Writes to a server that may be gone.
    pub(super) async fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request; `headers` are lines without their ends.
    pub(super) async fn request(&mut self, method: &str, path: &str, headers: &[&str]) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: layby.test\r\n");
        for line in headers {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        self.write(text.as_bytes()).await;
    }

    /// Sends a request and reads its whole answer.
    pub(super) async fn exchange(&mut self, method: &str, path: &str, headers: &[&str]) -> Reply {
        self.request(method, path, headers).await;
        self.reply(method).await
    }

    pub(super) async fn reply(&mut self, method: &str) -> Reply {
        let mut reply = self.head().await.expect("an answer");
        if method != "HEAD" && reply.status != 304 {
            self.body(&mut reply).await;
        }
        reply
    }

    /// Reads a head; `None` when the connection ends before one.
    pub(super) async fn head(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line).await {
                Ok(0) | Err(_) => return None,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => lines.push(line.trim_end().to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..]
            .iter()
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Some(Reply {
            status,
            headers,
            body: Vec::new(),
            whole: true,
        })
    }

    async fn body(&mut self, reply: &mut Reply) {
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.whole = self.chunks(&mut reply.body).await.is_some();
        } else if let Some(len) = reply.header("content-length") {
            let len: usize = len.parse().unwrap();
            reply.whole = self.exactly(len, &mut reply.body).await.is_some();
        } else {
            self.stream.read_to_end(&mut reply.body).await.unwrap();
        }
    }

    /// `None` when the connection ends before the last chunk.
    async fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.ok()?;
            let len = usize::from_str_radix(line.trim(), 16).ok()?;
            self.exactly(len, body).await?;
            self.exactly(2, &mut Vec::new()).await?;
            if len == 0 {
                return Some(());
            }
        }
    }

    /// Appends `len` bytes; `None` when the connection ends before them.
    pub(super) async fn exactly(&mut self, len: usize, body: &mut Vec<u8>) -> Option<()> {
        let wanted = body.len() + len;
        while body.len() < wanted {
            let mut piece = vec![0; (wanted - body.len()).min(64 * 1024)];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => body.extend_from_slice(&piece[..n]),
            }
        }
        Some(())
    }

    /// Whether the other side has closed, once it says anything at all.
    pub(super) async fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]).await, Ok(0) | Err(_))
    }
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given == name);
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice");
        first
    }

    /// The headers, sorted, without those that differ from answer to answer.
    pub(super) fn lasting_headers(&self) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| name != "date" && name != "x-request-id");
        headers.sort();
        headers
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Code and message of an error.
    pub(super) fn error(&self) -> (String, String) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let error = &body["errors"][0];
        let id = self.header("x-request-id").unwrap();
        assert_eq!(error["detail"]["request_id"], id);
        let message = error["message"].as_str().unwrap().to_owned();
        assert!(message.contains(id), "{message}");
        (error["code"].as_str().unwrap().to_owned(), message)
    }
}

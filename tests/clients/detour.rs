//! The way from Layby to a registry, on which everything can go wrong.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing: the registry answers.
    None,
    /// Connections are refused.
    Killed,
    /// Connections are taken, and that is all.
    Hanging,
    /// Every answer is this error.
    Answers(u16),
    /// Docker Hub's limit of pulls: `GET`s of manifests, and nothing else, are limited.
    PullLimit,
    /// Docker Hub's limit of requests of any kind.
    AbuseLimit,
}

/// A way to a registry. It ends when it is dropped.
pub(crate) struct Detour {
    port: u16,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    registry: u16,
    trouble: Mutex<Trouble>,
    is_closed: AtomicBool,
    connections: AtomicUsize,
}

impl Detour {
    /// A way without trouble to the registry at this port.
    pub(crate) fn to(registry: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut detour = Self {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::new(Shared {
                registry,
                trouble: Mutex::new(Trouble::None),
                is_closed: AtomicBool::new(false),
                connections: AtomicUsize::new(0),
            }),
            listening: None,
        };
        detour.listen(listener);
        detour
    }

    /// Where it begins.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often Layby has connected.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// From now on this is wrong.
    pub(crate) fn set(&mut self, trouble: Trouble) {
        *self.shared.trouble.lock().unwrap() = trouble;
        match (trouble, &self.listening) {
            (Trouble::Killed, Some(_)) => self.close(),
            (Trouble::Killed, None) | (_, Some(_)) => {}
            (_, None) => self.listen(TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).unwrap()),
        }
    }

    fn listen(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        shared.is_closed.store(false, Ordering::SeqCst);
        self.listening = Some(thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                // One that breaks is Layby's business.
                thread::spawn(move || drop(shared.carry(stream)));
            }
        }));
    }

    fn close(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listening) = self.listening.take() {
            listening.join().unwrap();
        }
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Answers the one request of a connection.
    fn carry(&self, mut layby: TcpStream) -> io::Result<()> {
        let head = head(&layby)?;
        let trouble = *self.trouble.lock().unwrap();
        let is_pull = head.starts_with("GET ") && head.contains("/manifests/");
        match trouble {
            Trouble::Killed => Ok(()),
            Trouble::Hanging => io::copy(&mut layby, &mut io::sink()).map(drop),
            Trouble::Answers(status) => answer(layby, status, "application/json", ERROR),
            Trouble::PullLimit if is_pull => answer(layby, 429, "application/json", PULL_LIMIT),
            Trouble::AbuseLimit => answer(layby, 429, "text/plain", ABUSE_LIMIT),
            Trouble::None | Trouble::PullLimit => self.forward(&head, layby),
        }
    }

    fn forward(&self, head: &str, mut layby: TcpStream) -> io::Result<()> {
        let mut registry = TcpStream::connect((Ipv4Addr::LOCALHOST, self.registry))?;
        write!(registry, "{head}Connection: close\r\n\r\n")?;
        io::copy(&mut registry, &mut layby)?;
        layby.shutdown(Shutdown::Write)
    }
}

/// A request's head without its last, empty line, and without what it says of the connection.
fn head(stream: &TcpStream) -> io::Result<String> {
    let mut head = String::new();
    // Requests have no bodies, so that nothing is lost with the reader.
    for line in BufReader::new(stream.take(MOST)).lines() {
        let line = line?;
        if line.is_empty() {
            return Ok(head);
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(&line);
            head.push_str("\r\n");
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn answer(mut layby: TcpStream, status: u16, media_type: &str, body: &str) -> io::Result<()> {
    write!(
        layby,
        "HTTP/1.1 {status} Trouble\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    layby.shutdown(Shutdown::Write)
}

/// Longest head.
const MOST: u64 = 64 * 1024;

const ERROR: &str = r#"{"errors":[{"code":"UNKNOWN","message":"trouble"}]}"#;
const PULL_LIMIT: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
const ABUSE_LIMIT: &str = "Too Many Requests (HAP429).\n";

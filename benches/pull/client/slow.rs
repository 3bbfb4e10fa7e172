//! Readers that take little at a time, from random places of a blob.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{Connection, Stream, Target, request};
use crate::Result;
use crate::content::Content;

/// Readers at work until this is dropped.
#[derive(Debug)]
pub(crate) struct SlowReaders {
    is_over: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl SlowReaders {
    /// Connects so many readers of `content`, each with an open-ended range from a place of its own.
    pub(crate) fn start(target: &Target, content: &Content, readers: usize) -> Result<Self> {
        let (is_over, bytes) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let mut random = fastrand::Rng::with_seed(readers as u64);
        let mut threads = Vec::new();
        let mut connections = Vec::new();
        for number in 1..=readers {
            let from = random.u64(0..content.len() * 3 / 4);
            connections.push(open(target, content, from)?);
            if connections.len() == EACH || number == readers {
                let (is_over, bytes) = (Arc::clone(&is_over), Arc::clone(&bytes));
                let mine = std::mem::take(&mut connections);
                threads.push(thread::spawn(move || read(mine, &is_over, &bytes)));
            }
        }
        Ok(Self {
            is_over,
            bytes,
            threads,
        })
    }

    /// What all of them have read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Readers for one thread.
const EACH: usize = 50;

/// What a reader takes at once, and how long it waits then.
const SIP: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(200);

/// What the reader's kernel keeps for it: little, since it is the server's that is looked at.
const RECEIVE_BUFFER: usize = 64 * 1024;

fn open(target: &Target, content: &Content, from: u64) -> Result<Connection> {
    let mut connection = Connection::open(target)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(connection.tcp(), RECEIVE_BUFFER)?;
    connection.send(&request(target, &content.blob_path(), Some(from)))?;
    let head = connection.head()?;
    if head.status != 206 || head.len != content.len() - from {
        let (status, len) = (head.status, head.len);
        return Err(format!("a range from {from}: status {status}, {len} bytes").into());
    }
    connection.tcp().set_nonblocking(true)?;
    Ok(connection)
}

fn read(mut connections: Vec<Connection>, is_over: &AtomicBool, bytes: &AtomicU64) {
    let mut buffer = vec![0; SIP];
    while !is_over.load(Ordering::Relaxed) {
        for connection in &mut connections {
            // An end of the body, or of the connection, leaves a reader that reads nothing more.
            if let Ok(got) = sip(&mut connection.stream, &mut buffer) {
                bytes.fetch_add(got as u64, Ordering::Relaxed);
            }
        }
        thread::sleep(PAUSE);
    }
}

fn sip(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Stream::Plain(tcp) => match recv(tcp, buffer, RecvFlags::TRUNC) {
            Err(Errno::AGAIN) => Ok(0),
            got => Ok(got?.1),
        },
        Stream::Tls(tls) => match tls.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            got => got,
        },
    }
}

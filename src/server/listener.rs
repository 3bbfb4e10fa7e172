//! Listening sockets: opened with clear errors, accepting through every passing trouble.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// An open listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Why Layby cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be had.
    #[error("cannot listen on {address} (`{key}`): {source}; {}", advice(.source))]
    Address {
        /// The address.
        address: SocketAddr,
        /// The configuration key that names it.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS listener's certificate or key cannot be used.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] super::tls::TlsError),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program holds it: stop that one, or give Layby another address"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: give one that it has",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the right to bind them: take a higher one"
        }
        _ => "give another address",
    }
}

impl Listener {
    /// Opens each address of `key`. Must be called within a tokio runtime.
    pub(super) fn bind_all(
        addresses: &[SocketAddr],
        key: &'static str,
    ) -> Result<Vec<Self>, BindError> {
        addresses
            .iter()
            .map(|&address| {
                // With both 0.0.0.0 and [::] asked for, [::] must leave IPv4 to the other.
                let v4_is_taken = addresses
                    .iter()
                    .any(|other| other.is_ipv4() && other.port() == address.port());
                Self::bind(address, v4_is_taken).map_err(|source| BindError::Address {
                    address,
                    key,
                    source,
                })
            })
            .collect()
    }

    fn bind(address: SocketAddr, only_v6: bool) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address it is bound to, with the real port where 0 was asked for.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Errors of the system (out of descriptors, out of memory) are logged and waited out.
    pub(super) async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    prepare(&stream);
                    return (stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(
                        address = %self.address, %error, pause_ms = pause.as_millis(),
                        "cannot accept connections; raise the limit of open files if it is that"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// Whether the error concerns the connection that was to be accepted, not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Answers go out at once, and a slow client holds little of the kernel's memory. Both only make things better, so a
/// system that refuses is not an error.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// Connections that the kernel keeps for us before we accept them.
const BACKLOG: i32 = 1024;
/// Unsent bytes beyond which the kernel takes no more: keeps the throughput and bounds the memory of slow readers.
const UNSENT_BYTES: u32 = 256 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_advice() {
        let held = Listener::bind_all(&["127.0.0.1:0".parse().unwrap()], "listen").unwrap();
        let taken = held[0].address();
        let error = Listener::bind_all(&[taken], "listen")
            .unwrap_err()
            .to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
        assert!(error.contains("`listen`"), "{error}");
        assert!(error.contains("another program holds it"), "{error}");
    }

    #[tokio::test]
    async fn both_wildcards_can_share_a_port() {
        let probe = Listener::bind_all(&["0.0.0.0:0".parse().unwrap()], "listen").unwrap();
        let port = probe[0].address().port();
        drop(probe);
        let both = [
            SocketAddr::from(([0, 0, 0, 0], port)),
            SocketAddr::from(([0; 16], port)),
        ];
        assert_eq!(Listener::bind_all(&both, "listen").unwrap().len(), 2);
    }
}

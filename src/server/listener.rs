//! Listening sockets: opened with clear errors, accepting through every passing trouble.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
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

    /// The next connection.
    pub(super) async fn accept(&self) -> (TcpStream, SocketAddr) {
        persist(self.address, || self.socket.accept()).await
    }
}

/// What `accept` gives at last. Errors of the system (out of descriptors, out of memory) are waited out, each longer than
/// the one before, and logged at the first and when they are over.
async fn persist<T, F>(address: SocketAddr, mut accept: impl FnMut() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    let mut failures = 0_u64;
    loop {
        match accept().await {
            Ok(accepted) => {
                if failures > 0 {
                    tracing::info!(%address, failures, "accepting connections again");
                }
                return accepted;
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(
                        %address, %error,
                        "cannot accept connections, trying on; raise the limit of open files if it is that"
                    );
                }
                failures += 1;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Whether the error concerns the connection that was to be accepted, which is gone from the queue with it, not the
/// listener (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
        Errno::PERM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// Has answers go out at once, a slow client hold little of the kernel's memory, and one that has vanished be noticed,
/// also after we have closed. All only make things better, so a system that refuses is not an error.
pub(super) fn prepare(stream: &TcpStream, stall_timeout: Duration) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    {
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
        let _ = socket.set_tcp_user_timeout(Some(stall_timeout));
    }
}

/// Connections that the kernel keeps for us before we accept them.
const BACKLOG: i32 = 1024;
/// Unsent bytes beyond which the kernel takes no more: keeps the throughput and bounds the memory of slow readers.
const UNSENT_BYTES: u32 = 256 * 1024;
/// Silence after which the kernel asks whether the client is still there, and how often it asks before it gives up after
/// `stall_timeout`.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rustix::io::Errno;
    use tokio::time::Instant;

    use super::*;

    /// How long it takes to accept when it first fails like this.
    async fn waits(failures: &[Errno]) -> Duration {
        let mut failures: VecDeque<_> = failures.iter().copied().collect();
        let started = Instant::now();
        let accepted = persist(([127, 0, 0, 1], 1).into(), || {
            let next = failures.pop_front();
            async move { next.map_or(Ok(7), |errno| Err(errno.into())) }
        });
        assert_eq!(accepted.await, 7);
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_the_system_are_waited_out_longer_and_longer() {
        assert_eq!(waits(&[]).await, Duration::ZERO);
        let once = waits(&[Errno::MFILE]).await;
        assert!(once >= FIRST_PAUSE && once < 2 * FIRST_PAUSE, "{once:?}");
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let waited = waits(&[errno; 20]).await;
            assert!(waited > 10 * LONGEST_PAUSE, "{waited:?}");
            assert!(waited < 20 * LONGEST_PAUSE, "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_one_connection_hold_up_no_other() {
        let failures = [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH].repeat(100);
        assert_eq!(waits(&failures).await, Duration::ZERO);
    }

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

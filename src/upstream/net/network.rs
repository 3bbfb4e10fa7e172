//! The network as a value: names to addresses, addresses to sockets. Tests give another.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::resolver::{Resolver, Share};
use crate::upstream::exchange::BoxFuture;

/// Resolves names and opens sockets.
pub(in crate::upstream) trait Network: fmt::Debug + Send + Sync {
    /// The addresses of `host`, best first; the look-up counts in `share` until it ends.
    fn resolve<'a>(
        &'a self,
        share: &'a Share,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// A connection to `address`.
    fn open(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The system's resolver and sockets.
#[derive(Debug)]
pub(in crate::upstream) struct SystemNetwork(Resolver);

impl SystemNetwork {
    /// Starts the resolver's threads.
    pub(in crate::upstream) fn new() -> io::Result<Self> {
        Resolver::system().map(Self)
    }
}

impl Network for SystemNetwork {
    fn resolve<'a>(
        &'a self,
        share: &'a Share,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(self.0.resolve(share, host, port))
    }

    fn open(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

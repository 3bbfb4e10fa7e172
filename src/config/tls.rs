//! `[tls]`: the HTTPS listener.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A listener that speaks TLS, HTTP/2 or HTTP/1.1 as the client chooses.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Its addresses; at least one.
    pub listen: Vec<SocketAddr>,
    /// Certificate chain, PEM; read again when it changes.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

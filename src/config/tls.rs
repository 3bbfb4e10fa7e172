//! `[tls]`: the HTTPS listener.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::document::Section;
use super::faults::Wrong;
use super::values::{address, path};

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

impl TlsListener {
    /// The listener that the section describes, if it is written.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let listen = section.list("listen", address);
        let cert_file = section.text("cert_file", path);
        let key_file = section.text("key_file", path);
        section.close();
        if !section.is_written() {
            return None;
        }
        for (key, instead) in [
            ("listen", r#"write listen = "0.0.0.0:5443""#),
            ("cert_file", "write the path of a PEM certificate chain"),
            ("key_file", "write the path of its PEM private key"),
        ] {
            if !section.has(key) || section.is_empty_list(key) {
                section.fault(key, Wrong::new("is missing", instead));
            }
        }
        Some(Self {
            listen: listen?,
            cert_file: cert_file?,
            key_file: key_file?,
        })
    }
}

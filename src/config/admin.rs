//! `[admin]`: metrics, health, administration.

use std::net::SocketAddr;

/// The admin listener.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Its address; `None` when turned off.
    pub listen: Option<SocketAddr>,
}

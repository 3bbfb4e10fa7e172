//! `[admin]`: metrics, health, administration.

use std::net::{Ipv4Addr, SocketAddr};

use super::document::Section;
use super::values::{address, unless_none};

/// The admin listener.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Its address; `None` when turned off.
    pub listen: Option<SocketAddr>,
}

impl Admin {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 5050));
        let admin = Self {
            listen: section
                .text("listen", unless_none(address))
                .unwrap_or(Some(default)),
        };
        section.close();
        admin
    }
}

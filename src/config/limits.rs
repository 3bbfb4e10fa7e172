//! `[limits]`: time-outs.

use std::time::Duration;

use super::document::Section;
use super::values::{grace, timeout};

/// Time-outs. None of them bounds the total time of a body.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For a TCP and TLS connection to an upstream.
    pub connect_timeout: Duration,
    /// Between a client's request and its status line, all of it.
    pub header_timeout: Duration,
    /// For the `HEAD` that revalidates a tag which could also be served stale.
    pub revalidate_timeout: Duration,
    /// Without a byte of progress, for upstream bodies and client writes.
    pub stall_timeout: Duration,
    /// For responses under way at shutdown.
    pub shutdown_grace: Duration,
}

impl Limits {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let of = |key, default| {
            section
                .text(key, timeout)
                .unwrap_or(Duration::from_secs(default))
        };
        let limits = Self {
            connect_timeout: of("connect_timeout", 5),
            header_timeout: of("header_timeout", 20),
            revalidate_timeout: of("revalidate_timeout", 3),
            stall_timeout: of("stall_timeout", 30),
            shutdown_grace: section
                .text("shutdown_grace", grace)
                .unwrap_or(Duration::from_secs(30)),
        };
        section.close();
        limits
    }
}

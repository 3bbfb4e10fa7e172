//! `[limits]`: time-outs.

use std::time::Duration;

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

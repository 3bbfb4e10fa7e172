//! `[limits]`: time-outs, and how many clients at once.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::Section;
use super::values::{grace, timeout};

/// Time-outs, none of which bounds the total time of a body, and limits of connections.
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
    /// Connections of clients at once, if the operator says how many.
    pub max_connections: Option<u32>,
    /// The same for one client address, if the operator says how many.
    pub max_connections_per_client: Option<u32>,
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
            max_connections: section.number("max_connections", CONNECTIONS),
            max_connections_per_client: section.number("max_connections_per_client", CONNECTIONS),
        };
        section.close();
        limits
    }

    /// What is allowed but should be known, if anything.
    pub(super) fn warning(&self) -> Option<String> {
        let seconds = self.header_timeout.as_secs();
        (self.header_timeout > LONGEST_HEADER_TIMEOUT).then(|| {
            format!(
                "limits.header_timeout is {seconds} s, but containerd waits 30 s for an answer and then gives up \
                 without having been told why: {} s or less leaves time to tell it",
                LONGEST_HEADER_TIMEOUT.as_secs()
            )
        })
    }
}

/// How many connections may be allowed.
const CONNECTIONS: RangeInclusive<u32> = 1..=1_000_000;
/// containerd waits 30 s; an answer may take 2 s more than `header_timeout`, and a moment on the network.
const LONGEST_HEADER_TIMEOUT: Duration = Duration::from_secs(27);

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    fn limits(text: &str) -> Result<Config, String> {
        let text = format!("[limits]\n{text}");
        Config::from_toml(&text, &Overrides::default()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn connections_are_limited_by_whole_numbers_above_nothing() {
        let config = limits("max_connections = 500\nmax_connections_per_client = 20").unwrap();
        assert_eq!(config.limits.max_connections, Some(500));
        assert_eq!(config.limits.max_connections_per_client, Some(20));
        for wrong in ["0", "-1", "1.5", "\"many\"", "1000001"] {
            let faults = limits(&format!("max_connections = {wrong}")).unwrap_err();
            assert!(faults.contains("limits.max_connections: "), "{faults}");
            assert!(faults.contains("from 1 to 1000000"), "{faults}");
        }
    }

    #[test]
    fn a_header_timeout_beyond_what_containerd_waits_is_warned_of() {
        assert!(
            limits("header_timeout = \"27s\"")
                .unwrap()
                .warnings()
                .is_empty()
        );
        let warnings = limits("header_timeout = \"28s\"").unwrap().warnings();
        assert!(
            warnings[0].contains("limits.header_timeout is 28 s"),
            "{warnings:?}"
        );
    }
}

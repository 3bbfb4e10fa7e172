//! Scheme, host and port: what credentials, connections and address rules are bound to (RFC 6454).

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// Where requests go: scheme, host, port. Two URLs with one origin may share connections and credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::upstream) struct Origin {
    https: bool,
    host: Host,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL; `None` for anything else.
    pub(in crate::upstream) fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            https,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// Whether connections to it are encrypted.
    pub(in crate::upstream) fn is_https(&self) -> bool {
        self.https
    }

    /// Its port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Its address where the URL writes one instead of a name.
    pub(super) fn literal_ip(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Ipv4(ip) => Some((*ip).into()),
            Host::Ipv6(ip) => Some((*ip).into()),
            Host::Domain(_) => None,
        }
    }

    /// Its name without a final dot, lower-case; `None` where the URL writes an address.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Domain(name) => Some(name.strip_suffix('.').unwrap_or(name)),
            _ => None,
        }
    }

    /// `host`, or `host:port` where the port is not the scheme's own: the `Host` header.
    pub(super) fn authority(&self) -> String {
        let default = if self.https { 443 } else { 80 };
        if self.port == default {
            self.host.to_string()
        } else {
            self.host_and_port()
        }
    }

    /// `host:port`, always with the port.
    pub(super) fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL for logs and messages: without user, query and fragment, which may hold secrets.
pub(in crate::upstream) fn without_secrets(url: &Url) -> String {
    Origin::of(url).map_or_else(
        || format!("{}:…", url.scheme()),
        |origin| format!("{origin}{}", url.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn default_ports_and_letter_case_make_no_other_origin() {
        assert_eq!(
            origin("https://A.example:443/x"),
            origin("https://a.example")
        );
        assert_ne!(origin("http://a.example"), origin("https://a.example"));
        assert_ne!(
            origin("https://a.example:8443"),
            origin("https://a.example")
        );
        assert_ne!(origin("https://cdn.a.example"), origin("https://a.example"));
    }

    #[test]
    fn a_url_is_shown_without_user_and_query() {
        let url = "https://user:secret@cdn.example/blob?X-Signature=secret#f"
            .parse()
            .unwrap();
        assert_eq!(without_secrets(&url), "https://cdn.example/blob");
    }
}

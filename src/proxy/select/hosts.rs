//! Names of hosts, compared without case and without the port that goes without saying.

use std::collections::HashMap;

/// Upstreams by the names that hosts are called by.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, usize>);

impl Hosts {
    /// Makes `name` mean `upstream`, unless it means another one already.
    pub(super) fn add(&mut self, name: &str, upstream: usize) {
        self.0.entry(name.to_ascii_lowercase()).or_insert(upstream);
    }

    /// Makes the other spelling of `name` mean the same: with `default_port` if it has none, without if it has that one.
    pub(super) fn add_other_spelling(&mut self, name: &str, default_port: u16, upstream: usize) {
        match split_port(name) {
            (host, None) => self.add(&format!("{host}:{default_port}"), upstream),
            (host, Some(port)) if port == default_port => self.add(host, upstream),
            (_, Some(_)) => {}
        }
    }

    /// The upstream that `name` means.
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        // Most requests name nothing that would have to be written anew.
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let found = if is_lower {
            self.0.get(name)
        } else {
            self.0.get(&name.to_ascii_lowercase())
        };
        found.copied()
    }

    /// Makes `name` mean `upstream`: on every port where it has none, as the port is the one that we listen on.
    pub(super) fn add_listener(&mut self, name: &str, upstream: usize) {
        match split_port(name) {
            (host, None) => self.add(&any_port(host), upstream),
            (_, Some(_)) => self.add(name, upstream),
        }
    }

    /// The upstream that a `Host` header means, by a name that was added for listeners.
    pub(super) fn get_listener(&self, name: &str) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        self.get(name)
            .or_else(|| self.get(&any_port(split_port(name).0)))
    }

    /// A name that is `host` with a port.
    pub(super) fn with_a_port(&self, host: &str) -> Option<usize> {
        self.0
            .iter()
            .filter(|(name, _)| {
                let (name, port) = split_port(name);
                port.is_some() && name.eq_ignore_ascii_case(host)
            })
            .map(|(_, upstream)| *upstream)
            .min()
    }
}

/// How a name is kept that means the same on every port.
fn any_port(host: &str) -> String {
    format!("{host}:*")
}

/// Splits `host:port`, `[address]:port` and the same without a port.
pub(super) fn split_port(name: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = name.rsplit_once(':') else {
        return (name, None);
    };
    let is_bare_address = host.contains(':') && !host.ends_with(']');
    match port.parse() {
        Ok(port) if !is_bare_address => (host, Some(port)),
        _ => (name, None),
    }
}

/// Whether two names are those of one host: the same but for case and the default ports of HTTP and HTTPS.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let (host, port) = split_port(one);
    let (other_host, other_port) = split_port(other);
    let explicit = |port: Option<u16>| port.filter(|port| !matches!(port, 80 | 443));
    host.eq_ignore_ascii_case(other_host) && explicit(port) == explicit(other_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_split_off_names_and_addresses() {
        for (name, parts) in [
            ("ghcr.io", ("ghcr.io", None)),
            ("ghcr.io:443", ("ghcr.io", Some(443))),
            ("127.0.0.1:5000", ("127.0.0.1", Some(5000))),
            ("[::1]:5000", ("[::1]", Some(5000))),
            ("[::1]", ("[::1]", None)),
            ("::1", ("::1", None)),
            ("a:99999", ("a:99999", None)),
            ("a:", ("a:", None)),
            ("", ("", None)),
        ] {
            assert_eq!(split_port(name), parts, "{name}");
        }
    }

    #[test]
    fn hosts_are_the_same_but_for_case_and_default_port() {
        for same in ["Layby.corp", "layby.corp:80", "layby.corp:443"] {
            assert!(is_same(same, "layby.CORP"), "{same}");
        }
        assert!(!is_same("layby.corp:5000", "layby.corp"));
        assert!(!is_same("layby.corp", "layby.corp.evil"));
        assert!(is_same("layby:5000", "LAYBY:5000"));
    }
}

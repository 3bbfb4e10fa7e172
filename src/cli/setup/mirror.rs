//! What clients are told: where the mirror is, and which registries it stands for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::{Host, Url};

use crate::config::UpstreamName;

/// Where clients reach Layby: scheme, host and port, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    is_tls: bool,
    /// As in a URL, without the scheme's own port.
    authority: String,
    is_loopback: bool,
}

/// A certificate authority that clients need to trust the mirror.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    /// Where it is on the client's machine.
    pub(super) path: PathBuf,
    /// What is in it.
    pub(super) pem: String,
}

/// What a client is to be told.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// Where Layby is.
    pub(super) mirror: Mirror,
    /// Registries by name; empty for what the client can have at most.
    pub(super) registries: Vec<UpstreamName>,
    /// For a mirror whose certificate no system trusts.
    pub(super) authority: Option<Authority>,
}

impl Mirror {
    /// The mirror at an address of this machine.
    pub(super) fn at(address: std::net::SocketAddr, is_tls: bool) -> Self {
        let default_port = if is_tls { 443 } else { 80 };
        let ip = address.ip();
        let authority = match (address.port() == default_port, ip.is_ipv6()) {
            (true, true) => format!("[{ip}]"),
            (true, false) => ip.to_string(),
            (false, _) => address.to_string(),
        };
        Self {
            is_tls,
            authority,
            is_loopback: ip.to_canonical().is_loopback(),
        }
    }

    /// `host:port`, without the port where it is the scheme's own.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether it speaks HTTPS.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether only this machine reaches it.
    pub(super) fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// The path of a registry on it, as clients take it that add `/v2/` after the host: `host:port/ghcr.io`.
    pub(super) fn of(&self, registry: &UpstreamName) -> String {
        format!("{}/{registry}", self.authority)
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| {
            format!("{why}; write it as http://host:port, or https:// where it speaks TLS")
        };
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it is neither http:// nor https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a mirror has no user and no password"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("a path is added for each client as it needs one"));
        }
        let host = url.host().ok_or_else(|| wrong("it has no host"))?;
        let is_loopback = match &host {
            Host::Domain(name) => *name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.to_canonical().is_loopback(),
        };
        let port = url.port().map(|port| format!(":{port}"));
        Ok(Self {
            is_tls: url.scheme() == "https",
            authority: format!("{host}{}", port.unwrap_or_default()),
            is_loopback,
        })
    }
}

impl Wish {
    /// The registries by name, or those that most images come from.
    pub(super) fn named(&self) -> Vec<UpstreamName> {
        if !self.registries.is_empty() {
            return self.registries.clone();
        }
        let usual = USUAL.iter().filter_map(|name| name.parse().ok());
        usual.collect()
    }
}

/// A registry's name as a client's file has it.
pub(super) fn registry(text: &str) -> Result<UpstreamName, String> {
    let name: UpstreamName = text.parse().map_err(|why| format!("a registry is {why}"))?;
    match name.as_str() {
        "index.docker.io" | "registry-1.docker.io" => Ok("docker.io".parse()?),
        plain if !plain.contains(['.', ':']) && plain != "localhost" => {
            Err("a registry has a dot in its name, such as ghcr.io".to_owned())
        }
        _ => Ok(name),
    }
}

/// For clients that need each registry named.
const USUAL: [&str; 4] = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"];

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(text: &str) -> Mirror {
        text.parse().unwrap()
    }

    #[test]
    fn a_mirror_is_scheme_host_and_port() {
        for (text, url, authority, is_loopback) in [
            (
                "http://127.0.0.1:5000",
                "http://127.0.0.1:5000",
                "127.0.0.1:5000",
                true,
            ),
            (
                "http://Layby.lan:80/",
                "http://layby.lan",
                "layby.lan",
                false,
            ),
            (
                "https://mirror.test",
                "https://mirror.test",
                "mirror.test",
                false,
            ),
            (
                "https://[::1]:5443",
                "https://[::1]:5443",
                "[::1]:5443",
                true,
            ),
            (
                "http://localhost:5000",
                "http://localhost:5000",
                "localhost:5000",
                true,
            ),
        ] {
            let mirror = mirror(text);
            assert_eq!(mirror.to_string(), url);
            assert_eq!(mirror.authority(), authority);
            assert_eq!(mirror.is_loopback(), is_loopback, "{text}");
        }
    }

    #[test]
    fn what_is_no_mirror_is_answered_with_what_to_write() {
        for text in [
            "127.0.0.1:5000",
            "layby:5000",
            "ftp://layby",
            "http://user:secret@layby:5000",
            "http://layby:5000/ghcr.io",
            "http://layby:5000/?ns=ghcr.io",
            "http://",
        ] {
            let error = text.parse::<Mirror>().unwrap_err();
            assert!(error.contains("http://host:port"), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_address_is_written_as_a_url_has_it() {
        let at = |address: &str, is_tls| Mirror::at(address.parse().unwrap(), is_tls).to_string();
        assert_eq!(at("127.0.0.1:5000", false), "http://127.0.0.1:5000");
        assert_eq!(at("[::1]:443", true), "https://[::1]");
        assert_eq!(at("10.0.0.1:80", false), "http://10.0.0.1");
    }

    #[test]
    fn docker_hub_has_one_name_and_a_word_without_a_dot_is_no_registry() {
        assert_eq!(registry("index.docker.io").unwrap().as_str(), "docker.io");
        assert_eq!(registry("GHCR.io").unwrap().as_str(), "ghcr.io");
        assert!(registry("hub").unwrap_err().contains("ghcr.io"));
        assert!(registry("a/b").is_err());
    }
}

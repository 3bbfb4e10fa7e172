//! Where tokens may be asked for, and who may see the credentials (DESIGN 8; PROTOCOL 0.19).

use url::Url;

use crate::config::{HostPort, Upstream};
use crate::upstream::Error;

/// The address of a token service that an upstream named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm {
    /// Absolute, without user and fragment.
    pub(super) url: Url,
    /// Whether it is the upstream's own host, or one that the operator trusts with the credentials.
    pub(super) trusted: bool,
}

impl Realm {
    /// Reads the realm of a challenge from `base`, an address of `upstream`.
    ///
    /// A realm that is neither https nor, for an http upstream, http is refused.
    pub(super) fn resolve(text: &str, base: &Url, upstream: &Upstream) -> Result<Self, Error> {
        let mut url = base.join(text).map_err(|_| {
            Error::invalid(format!(
                "upstream {} asks for a token from a realm that is not a URL",
                upstream.name
            ))
        })?;
        match url.scheme() {
            "https" => {}
            "http" if base.scheme() == "http" => {}
            _ => {
                return Err(Error::refused(
                    "realm",
                    format!(
                        "upstream {} asks for a token from {}, which is not https: no token is asked for in the clear",
                        upstream.name,
                        place(&url)
                    ),
                ));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid(format!(
                "upstream {} asks for a token from a realm that carries a user: {}",
                upstream.name,
                place(&url)
            )));
        }
        url.set_fragment(None);
        let trusted = is_own(&url, base) || upstream.token_hosts.iter().any(|t| is_at(&url, t));
        Ok(Self { url, trusted })
    }

    /// The refusal to show the credentials of `upstream` to this realm; says which host to trust.
    pub(super) fn foreign(&self, upstream: &Upstream) -> Error {
        foreign(&self.url, upstream, "asks for a token from")
    }
}

/// The refusal to go with credentials to `url`, which `upstream`'s challenge or redirect `leads` to.
pub(super) fn foreign(url: &Url, upstream: &Upstream, leads: &str) -> Error {
    Error::refused(
        "token_hosts",
        format!(
            "upstream {name} {leads} {place}, which is not its own host: if it may see the credentials, add \"{host}\" to \
             token_hosts of upstreams.\"{name}\"",
            name = upstream.name,
            place = place(url),
            host = host_port(url),
        ),
    )
}

/// Scheme, host, port and path of `url`: what may be shown.
pub(super) fn place(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_port(url), url.path())
}

/// The host, and the port where it is not the scheme's own: what `token_hosts` takes.
pub(super) fn host_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The same host on the same port, or each on its scheme's own port (an http upstream with an https realm).
pub(super) fn is_own(url: &Url, base: &Url) -> bool {
    let same_port = url.port_or_known_default() == base.port_or_known_default()
        || (url.port().is_none() && base.port().is_none());
    url.host().is_some() && url.host() == base.host() && same_port
}

fn is_at(url: &Url, trusted: &HostPort) -> bool {
    let bare = |host: &str| {
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase()
    };
    let same_port = match trusted.port {
        Some(port) => url.port_or_known_default() == Some(port),
        None => url.port().is_none(),
    };
    same_port
        && url
            .host_str()
            .is_some_and(|h| bare(h) == bare(&trusted.host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::auth::testing;

    fn resolve(text: &str, base: &str, trusted: &[(&str, Option<u16>)]) -> Result<Realm, Error> {
        let mut upstream = testing::upstream(base);
        upstream.token_hosts = trusted
            .iter()
            .map(|&(host, port)| HostPort {
                host: host.to_owned(),
                port,
            })
            .collect();
        Realm::resolve(
            text,
            &Url::parse(base).unwrap().join("/v2/").unwrap(),
            &upstream,
        )
    }

    fn trusted(text: &str, base: &str, hosts: &[(&str, Option<u16>)]) -> bool {
        resolve(text, base, hosts).unwrap().trusted
    }

    #[test]
    fn a_relative_realm_is_the_upstreams_own() {
        let realm = resolve("/token?a=b", "https://r.example:5000/", &[]).unwrap();
        assert_eq!(realm.url.as_str(), "https://r.example:5000/token?a=b");
        assert!(realm.trusted);
    }

    #[test]
    fn the_own_host_is_trusted_on_its_own_port_alone() {
        assert!(trusted("https://R.example/t", "https://r.example", &[]));
        assert!(trusted("https://r.example:443/t", "https://r.example", &[]));
        assert!(!trusted(
            "https://r.example:444/t",
            "https://r.example",
            &[]
        ));
        assert!(!trusted(
            "https://auth.r.example/t",
            "https://r.example",
            &[]
        ));
        assert!(trusted("https://r.example/t", "http://r.example", &[]));
        assert!(!trusted("https://r.example/t", "http://r.example:81", &[]));
    }

    #[test]
    fn a_host_of_token_hosts_is_trusted_on_its_port() {
        let up = "https://r.example";
        assert!(trusted("https://auth.x/t", up, &[("auth.x", None)]));
        assert!(!trusted("https://auth.x:8443/t", up, &[("auth.x", None)]));
        assert!(trusted(
            "https://auth.x:8443/t",
            up,
            &[("auth.x", Some(8443))]
        ));
        assert!(trusted("https://auth.x/t", up, &[("auth.x", Some(443))]));
        assert!(!trusted("https://auth.x.evil/t", up, &[("auth.x", None)]));
        assert!(trusted("https://[::1]:7/t", up, &[("::1", Some(7))]));
    }

    #[test]
    fn a_realm_in_the_clear_is_refused_unless_the_upstream_is() {
        let refused = resolve("http://r.example/t", "https://r.example", &[]).unwrap_err();
        assert_eq!(refused.reason(), "refused");
        assert!(resolve("http://r.example/t", "http://r.example", &[]).is_ok());
        assert!(resolve("ftp://r.example/t", "http://r.example", &[]).is_err());
        assert!(resolve("file:///etc/passwd", "http://r.example", &[]).is_err());
    }

    #[test]
    fn a_realm_with_a_user_is_not_followed_nor_shown() {
        let error = resolve("https://u:pw@r.example/t", "https://r.example", &[]).unwrap_err();
        assert_eq!(error.reason(), "invalid");
        assert!(!error.to_string().contains("pw"), "{error}");
    }

    #[test]
    fn the_refusal_of_a_foreign_realm_names_the_host_to_add_and_hides_the_query() {
        let realm = resolve("https://auth.x:8443/t?secret=1", "https://r.example", &[]).unwrap();
        let error = realm.foreign(&testing::upstream("https://r.example"));
        let Error::Refused { message, key } = error else {
            panic!("{error:?}");
        };
        assert_eq!(key, "token_hosts");
        assert!(message.contains("add \"auth.x:8443\""), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

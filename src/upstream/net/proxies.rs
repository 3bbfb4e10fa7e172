//! HTTP proxies: which one a connection goes through, and the tunnel through it (RFC 9110, section 9.3.6).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use url::Url;

use super::Origin;
use super::address::Reach;
use crate::config;

/// A proxy that speaks HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpProxy {
    /// Where it answers; always plain HTTP.
    pub(super) origin: Origin,
    /// Value of `Proxy-Authorization`, marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

/// What is wrong with a proxy's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} is not a proxy that Layby can use: write it as http://[user:password@]host:port"
)]
pub(in crate::upstream) struct ProxyError {
    variable: &'static str,
}

impl HttpProxy {
    fn parse(url: &Url) -> Option<Self> {
        let origin = Origin::of(url).filter(|origin| !origin.is_https())?;
        let authorization = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            Some(basic(url.username(), url.password().unwrap_or_default())?)
        };
        Some(Self {
            origin,
            authorization,
        })
    }
}

/// `Basic` of a user and password that are percent-encoded, as in a URL.
fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let mut pair: Vec<u8> = percent_decode_str(username).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say, upper-case before lower-case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::upstream) struct ProxyEnvironment {
    https: Option<HttpProxy>,
    http: Option<HttpProxy>,
    exempt: Vec<Exempt>,
}

/// An entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exempt {
    /// `*`
    All,
    /// A network, or one address.
    Net(ipnet::IpNet, Option<u16>),
    /// A name and everything below it.
    Domain(String, Option<u16>),
}

impl ProxyEnvironment {
    /// Reads this process's environment.
    pub(in crate::upstream) fn from_env() -> Result<Self, ProxyError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads the variables that `get` knows.
    pub(in crate::upstream) fn read(
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ProxyError> {
        let either = |upper: &str| {
            let filled = |value: &String| !value.trim().is_empty();
            get(upper)
                .filter(filled)
                .or_else(|| get(&upper.to_ascii_lowercase()).filter(filled))
        };
        let proxy = |variable: &'static str| {
            either(variable)
                .map(|text| parse_proxy(text.trim()).ok_or(ProxyError { variable }))
                .transpose()
        };
        Ok(Self {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            exempt: either("NO_PROXY")
                .map(|text| parse_exempt(&text))
                .unwrap_or_default(),
        })
    }

    /// The proxy for connections to `target`. What is on this machine is always reached directly.
    fn proxy_for(&self, target: &Origin) -> Option<&HttpProxy> {
        let proxy = if target.is_https() {
            &self.https
        } else {
            &self.http
        };
        let direct = Reach::as_written(target) == Some(Reach::Loopback)
            || self.exempt.iter().any(|entry| entry.matches(target));
        proxy.as_ref().filter(|_| !direct)
    }
}

impl Exempt {
    fn matches(&self, target: &Origin) -> bool {
        let port_fits = |port: &Option<u16>| port.is_none_or(|port| port == target.port());
        match self {
            Self::All => true,
            Self::Net(net, port) => {
                port_fits(port) && target.literal_ip().is_some_and(|ip| net.contains(&ip))
            }
            Self::Domain(domain, port) => {
                let within = |name: &str| {
                    name.strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                port_fits(port) && target.name().is_some_and(within)
            }
        }
    }
}

/// A proxy's URL; without a scheme it is `http`, as curl takes it.
fn parse_proxy(text: &str) -> Option<HttpProxy> {
    let url = if text.contains("://") {
        text.parse()
    } else {
        format!("http://{text}").parse()
    };
    HttpProxy::parse(&url.ok()?)
}

fn parse_exempt(text: &str) -> Vec<Exempt> {
    text.split([',', ' ']).filter_map(parse_exemption).collect()
}

/// One entry; what nothing can match is left out.
fn parse_exemption(entry: &str) -> Option<Exempt> {
    let entry = entry.trim();
    if entry == "*" {
        return Some(Exempt::All);
    }
    if let Ok(net) = entry.parse() {
        return Some(Exempt::Net(net, None));
    }
    if let Ok(ip) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(Exempt::Net(ip.into(), None));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(Exempt::Net(ip.into(), port));
    }
    let domain = host
        .trim_start_matches("*.")
        .trim_matches('.')
        .to_ascii_lowercase();
    (!domain.is_empty()).then_some(Exempt::Domain(domain, port))
}

/// How the connections of one upstream are made.
#[derive(Debug, Clone)]
pub(super) enum Proxies {
    Direct,
    /// Written in the configuration: meant for everything, `NO_PROXY` or not.
    Always(HttpProxy),
    Environment(Arc<ProxyEnvironment>),
}

impl Proxies {
    /// What the configuration chose.
    pub(super) fn new(
        choice: &config::ProxyChoice,
        environment: &Arc<ProxyEnvironment>,
    ) -> Result<Self, ProxyError> {
        Ok(match choice {
            config::ProxyChoice::Direct => Self::Direct,
            config::ProxyChoice::Environment => Self::Environment(Arc::clone(environment)),
            config::ProxyChoice::Via(url) => {
                Self::Always(HttpProxy::parse(url).ok_or(ProxyError { variable: "proxy" })?)
            }
        })
    }

    /// The proxy that connections to `target` go through.
    pub(super) fn proxy_for(&self, target: &Origin) -> Option<&HttpProxy> {
        match self {
            Self::Direct => None,
            Self::Always(proxy) => Some(proxy),
            Self::Environment(environment) => environment.proxy_for(target),
        }
    }
}

/// Most bytes of a proxy's answer to `CONNECT`.
const MAX_ANSWER: usize = 8 * 1024;

/// Asks the proxy at the other end of `stream` for a tunnel to `target`. Fails with what an operator can act on.
pub(super) async fn open_tunnel<S>(
    stream: &mut S,
    proxy: &HttpProxy,
    target: &Origin,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let host = target.host_and_port();
    let mut request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    match read_status(stream).await? {
        200..=299 => Ok(()),
        407 => Err(io::Error::other(
            "the proxy wants another user and password (407)",
        )),
        status => Err(io::Error::other(format!(
            "the proxy refuses to connect there ({status})"
        ))),
    }
}

/// The status of the answer, of which nothing past its head is read: what follows belongs to the tunnel.
async fn read_status<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<u16> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_ANSWER {
            return Err(io::Error::other(
                "the proxy's answer to CONNECT is too long",
            ));
        }
        head.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&head).unwrap_or_default();
    text.strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.trim().parse().ok())
        .ok_or_else(|| io::Error::other("the proxy does not answer as an HTTP proxy does"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Result<ProxyEnvironment, ProxyError> {
        ProxyEnvironment::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn goes_through(environment: &ProxyEnvironment, url: &str) -> Option<String> {
        let origin = Origin::of(&url.parse().unwrap()).unwrap();
        environment
            .proxy_for(&origin)
            .map(|proxy| proxy.origin.host_and_port())
    }

    #[test]
    fn each_scheme_has_its_proxy_and_both_letter_cases_count() {
        let both = environment(&[("HTTPS_PROXY", "http://a:1"), ("http_proxy", "b:2")]).unwrap();
        assert_eq!(
            goes_through(&both, "https://x.example").as_deref(),
            Some("a:1")
        );
        assert_eq!(
            goes_through(&both, "http://x.example").as_deref(),
            Some("b:2")
        );
        let none = environment(&[("HTTPS_PROXY", "")]).unwrap();
        assert_eq!(goes_through(&none, "https://x.example"), None);
    }

    #[test]
    fn exempt_hosts_and_this_machine_are_reached_directly() {
        let environment = environment(&[
            ("HTTPS_PROXY", "http://p:1"),
            (
                "no_proxy",
                "corp.example, .inner.example,*.lab.example,10.0.0.0/8,odd.example:8443",
            ),
        ])
        .unwrap();
        for direct in [
            "https://corp.example",
            "https://a.corp.example",
            "https://a.inner.example",
            "https://a.lab.example",
            "https://10.9.9.9:5000",
            "https://odd.example:8443",
            "https://localhost:5000",
            "https://127.0.0.1",
            "https://[::1]",
        ] {
            assert_eq!(goes_through(&environment, direct), None, "{direct}");
        }
        for proxied in [
            "https://notcorp.example",
            "https://odd.example",
            "https://11.0.0.1",
        ] {
            assert!(goes_through(&environment, proxied).is_some(), "{proxied}");
        }
    }

    #[test]
    fn a_star_exempts_everything() {
        let environment = environment(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!(goes_through(&environment, "https://x.example"), None);
    }

    #[test]
    fn the_proxys_login_is_decoded_and_never_shown() {
        let proxy = parse_proxy("http://us%40er:p%3Ass@proxy:3128").unwrap();
        let value = proxy.authorization.clone().unwrap();
        assert_eq!(value, "Basic dXNAZXI6cDpzcw==");
        assert!(!format!("{proxy:?}").contains("dXNA"));
    }

    #[test]
    fn a_proxy_that_does_not_speak_http_is_named() {
        let error = environment(&[("HTTPS_PROXY", "socks5://p:1")]).unwrap_err();
        assert!(error.to_string().contains("HTTPS_PROXY"), "{error}");
    }
}

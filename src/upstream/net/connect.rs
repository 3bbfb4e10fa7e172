//! A fresh connection: name, address rule, socket, proxy, TLS.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::CertificateError;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::{AddressRule, Reach};
use super::proxies::{HttpProxy, Proxies, ProxyEnvironment, ProxyError, open_tunnel};
use super::resolver::Share;
use super::shortage::{is_shortage_at, kind_of, shortage};
use super::{Network, Origin, Tls};
use crate::config;
use crate::upstream::Error;
use crate::upstream::failure::{Failure, Kind};

/// Makes the connections of one upstream URL, its own and those to the hosts that it sends us to.
#[derive(Debug)]
pub(in crate::upstream) struct Connector {
    upstream: config::UpstreamName,
    home: Origin,
    network: Arc<dyn Network>,
    proxies: Proxies,
    /// For `home`, with the certificate that we show there.
    tls: Arc<Tls>,
    /// For everybody else, who must not see it.
    foreign_tls: Arc<Tls>,
    rule: AddressRule,
    /// For the names that the upstream sends us to.
    foreign_names: Share,
    /// For name, socket, proxy and TLS together.
    timeout: Duration,
}

/// Bytes both ways, whatever lies beneath.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection that is ready for HTTP.
pub(super) struct Established {
    pub(super) stream: Box<dyn Stream>,
    /// Whether HTTP/2 was agreed on.
    pub(super) http2: bool,
    /// The proxy that requests must be addressed to, where there is no tunnel through it.
    pub(super) forwarder: Option<HttpProxy>,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established")
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}

/// Head start of one address before the next is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

impl Connector {
    /// A connector for the upstream URL whose origin is `home`. Only `home` is met with `tls`, which may show a
    /// certificate; others are with `foreign_tls`.
    pub(in crate::upstream) fn new(
        upstream: &config::Upstream,
        home: Origin,
        network: Arc<dyn Network>,
        environment: &Arc<ProxyEnvironment>,
        tls: Arc<Tls>,
        foreign_tls: Arc<Tls>,
        timeout: Duration,
    ) -> Result<Self, ProxyError> {
        Ok(Self {
            upstream: upstream.name.clone(),
            proxies: Proxies::new(&upstream.proxy, environment)?,
            rule: AddressRule::new(&home, upstream.allow_private),
            foreign_names: Share::foreign(),
            home,
            network,
            tls,
            foreign_tls,
            timeout,
        })
    }

    /// The proxy that connections to `target` go through, without user and password.
    pub(super) fn proxy_for(&self, target: &Origin) -> Option<String> {
        let proxy = self.proxies.proxy_for(target)?;
        Some(proxy.origin.to_string())
    }

    /// Connects to `target`, which is foreign unless it is the upstream itself.
    pub(super) async fn connect(&self, target: &Origin) -> Result<Established, Failure> {
        let until = Instant::now() + self.timeout;
        let too_slow = |_| {
            let after = self.timeout;
            unreachable(format!(
                "{target} did not take a connection within {after:?}"
            ))
        };
        if let Some(reach) = Reach::as_written(target) {
            self.check(target, reach)?;
        }
        let proxy = self.proxies.proxy_for(target);
        let tcp = timeout_at(until, self.open(target, proxy))
            .await
            .map_err(too_slow)??;
        if !target.is_https() {
            return Ok(Established {
                stream: Box::new(tcp),
                http2: false,
                forwarder: proxy.cloned(),
            });
        }
        timeout_at(until, self.encrypt(target, tcp))
            .await
            .map_err(too_slow)?
    }

    /// A socket whose bytes reach `target`, or the proxy that forwards to it.
    async fn open(&self, target: &Origin, proxy: Option<&HttpProxy>) -> Result<TcpStream, Failure> {
        let Some(proxy) = proxy else {
            return self.open_direct(target).await;
        };
        let failed = |error: io::Error| {
            let name = &proxy.origin;
            Failure::unavailable(
                kind_of(&error),
                format!("{target} cannot be reached through the proxy {name}: {error}"),
            )
        };
        let addresses = self
            .resolve(&Share::whole(), &proxy.origin)
            .await
            .map_err(failed)?;
        let (mut stream, _) = self.open_any(addresses).await.map_err(failed)?;
        if target.is_https() {
            open_tunnel(&mut stream, proxy, target)
                .await
                .map_err(failed)?;
        }
        Ok(stream)
    }

    async fn open_direct(&self, target: &Origin) -> Result<TcpStream, Failure> {
        let failed = |error: io::Error| {
            let message = format!("{target} cannot be reached: {error}");
            Failure::unavailable(kind_of(&error), message)
        };
        let whole = Share::whole();
        let is_home = *target == self.home;
        let share = if is_home { &whole } else { &self.foreign_names };
        let mut addresses = self.resolve(share, target).await.map_err(failed)?;
        if !is_home {
            let mut refused = Ok(());
            addresses.retain(|address| {
                let verdict = self.check(target, Reach::of(address.ip()));
                let permitted = verdict.is_ok();
                refused = std::mem::replace(&mut refused, Ok(())).and(verdict);
                permitted
            });
            if addresses.is_empty() {
                refused?;
            }
        }
        let (stream, address) = self.open_any(addresses).await.map_err(failed)?;
        if is_home {
            self.rule.found_home_at(address.ip());
        }
        Ok(stream)
    }

    /// The address rule for a foreign `target` that is, or says it is, at an address of this reach.
    fn check(&self, target: &Origin, reach: Reach) -> Result<(), Error> {
        if *target == self.home || self.rule.permits(reach) {
            return Ok(());
        }
        let place = match reach {
            Reach::Public => "a public address",
            Reach::Site => "a private address",
            Reach::Link => "a link-local address",
            Reach::Loopback => "this machine",
        };
        let (name, home) = (&self.upstream, &self.home);
        Err(Error::refused(
            "allow_private",
            format!(
                "{home} sends us to {target}, which is at {place}; if that is right, set \
                allow_private = true in [upstreams.\"{name}\"]"
            ),
        ))
    }

    async fn resolve(&self, share: &Share, origin: &Origin) -> io::Result<Vec<SocketAddr>> {
        let port = origin.port();
        match (origin.literal_ip(), origin.name()) {
            (Some(ip), _) => Ok(vec![SocketAddr::new(ip, port)]),
            (None, Some(name)) => self.network.resolve(share, name, port).await,
            (None, None) => Ok(Vec::new()),
        }
    }

    /// The first socket that opens; address families take turns, and a slow address does not hold up the next. Where
    /// none opens and one could not be tried for want of something here, that is the error.
    async fn open_any(&self, addresses: Vec<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
        let mut waiting = take_turns(addresses);
        let mut trying = FuturesUnordered::new();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        let mut short = None;
        loop {
            if let Some(address) = waiting.pop_front() {
                trying.push(async move { (self.network.open(address).await, address) });
            } else if trying.is_empty() {
                return Err(short.unwrap_or(last));
            }
            let next = if waiting.is_empty() {
                Ok(trying.next().await)
            } else {
                timeout(HEAD_START, trying.next()).await
            };
            match next {
                Ok(Some((Ok(stream), address))) => return Ok((stream, address)),
                Ok(Some((Err(error), address))) if is_shortage_at(address, &error) => {
                    short = Some(shortage(format!(
                        "this machine has reached a limit, raise it: {error}"
                    )));
                }
                Ok(Some((Err(error), _))) => last = error,
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn encrypt(&self, target: &Origin, tcp: TcpStream) -> Result<Established, Failure> {
        let tls = if *target == self.home {
            &self.tls
        } else {
            &self.foreign_tls
        };
        let config = tls
            .config()
            .await
            .map_err(|error| Failure::new(Kind::Unreachable, error))?;
        let name = match (target.literal_ip(), target.name()) {
            (Some(ip), _) => ServerName::from(ip),
            (None, name) => ServerName::try_from(name.unwrap_or_default().to_owned())
                .map_err(|_| unreachable(format!("{target} is not a host name")))?,
        };
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .map_err(|error| self.handshake_failed(target, &error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Established {
            stream: Box::new(stream),
            http2,
            forwarder: None,
        })
    }

    fn handshake_failed(&self, target: &Origin, error: &io::Error) -> Failure {
        let cause = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let hint = match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                format!(
                    "; set ca_file in [upstreams.\"{}\"] if its authority is your own",
                    self.upstream
                )
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                "; if it speaks plain HTTP, write its url with http://".to_owned()
            }
            _ => String::new(),
        };
        let kind = match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Kind::Reset,
            _ => Kind::Unreachable,
        };
        Failure::unavailable(kind, format!("no TLS with {target}: {error}{hint}"))
    }
}

fn unreachable(message: String) -> Failure {
    Failure::unavailable(Kind::Unreachable, message)
}

/// The addresses in their order, families alternating, beginning with the first one's.
fn take_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (firsts, seconds): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let mut turns = VecDeque::with_capacity(firsts.len() + seconds.len());
    let mut seconds = seconds.into_iter();
    for address in firsts {
        turns.push_back(address);
        turns.extend(seconds.next());
    }
    turns.extend(seconds);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let turns = take_turns(parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]));
        assert_eq!(
            Vec::from(turns),
            parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
    }
}

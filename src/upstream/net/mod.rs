//! Connections to upstreams: names, addresses, proxies, TLS, HTTP/1.1 and HTTP/2, and the pool that keeps them.
//!
//! Owns sockets and the rule which addresses they may lead to. Knows nothing of registries, credentials or redirects:
//! it sends one request to one URL. Imports `config` values, `runtime`, and the errors of `upstream`.

mod address;
mod body;
mod connect;
mod kept;
mod lane;
mod network;
mod origin;
mod pool;
mod proxies;
mod resolver;
mod shortage;
mod spoken;
mod tls;

pub(super) use body::Body;
pub(super) use connect::Connector;
pub(super) use lane::Reader;
pub(super) use network::{Network, SystemNetwork};
pub(super) use origin::{Origin, without_secrets};
pub(super) use pool::{Outgoing, Pool};
pub(super) use proxies::{ProxyEnvironment, ProxyError};
#[cfg(test)]
pub(super) use resolver::Share;
pub(super) use tls::{SystemRoots, Tls};

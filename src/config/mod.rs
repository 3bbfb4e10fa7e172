//! The configuration as values that are valid: whoever holds a [`Config`] need not check it again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

mod admin;
mod cache;
mod limits;
mod log;
mod tags;
mod tls;
mod upstream;

pub use admin::Admin;
pub use cache::{Cache, MinFree};
pub use limits::Limits;
pub use log::{Log, LogFormat};
pub use tags::TagPolicy;
pub use tls::TlsListener;
pub use upstream::{
    CredentialSource, HostPort, ProxyChoice, RepositoryFilter, Upstream, UpstreamName, UpstreamUrl,
};

/// Everything that an operator may decide, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses of the plain-HTTP listeners.
    pub listen: Vec<SocketAddr>,
    /// TLS listener, if any.
    pub tls: Option<TlsListener>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Upstream of requests that nothing else assigns; one of `upstreams`.
    pub default_upstream: UpstreamName,
    /// Whether no connection may be opened.
    pub offline: bool,
    /// Networks that may use Layby; empty: all.
    pub clients: Vec<IpNet>,
    /// Whether everyone may use our credentials on purpose.
    pub public: bool,
    /// Host names that clients know us by, lower-case, without port.
    pub server_names: Vec<String>,
    /// Whether `/v2/_catalog` is answered.
    pub catalog: bool,
    /// The admin listener.
    pub admin: Admin,
    /// All upstreams, the built-in ones included, sorted by name.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Limits of the disk.
    pub cache: Cache,
    /// Time-outs and limits.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
}

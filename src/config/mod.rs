//! The configuration as values that are valid: whoever holds a [`Config`] need not check it again.
//!
//! One file per section of the TOML: its validated struct and how it is read. [`Config::from_toml`] and [`Config::load`]
//! report everything that is wrong at once, each fault with its key and what to write instead. Opens no connection and
//! creates nothing. Imports `oci` for names.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

mod admin;
mod cache;
mod document;
mod faults;
mod files;
mod image_pattern;
mod limits;
mod load;
mod log;
mod overrides;
mod pin;
mod tags;
mod tls;
mod upstream;
mod values;
mod warm;

#[cfg(test)]
mod tests;

pub use admin::Admin;
pub use cache::{Cache, MinFree};
pub use faults::{Fault, Faults};
pub use image_pattern::{ImagePattern, PatternError};
pub use limits::Limits;
pub use log::{Log, LogFormat};
pub use overrides::{Given, Overrides};
pub use pin::{Pin, PinError};
pub use tags::{TagPolicy, TagRule, TagRules};
pub use tls::TlsListener;
pub use upstream::{
    CredentialSource, HostPort, ProxyChoice, RepositoryFilter, Upstream, UpstreamName, UpstreamUrl,
};
pub use warm::Warm;

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
    /// What holds for some tags in particular.
    pub tag_rules: Arc<TagRules>,
    /// Limits of the disk.
    pub cache: Cache,
    /// Time-outs and limits.
    pub limits: Limits,
    /// Logs.
    pub log: Log,
    /// Images that are brought at intervals.
    pub warm: Vec<Warm>,
}

impl Config {
    /// What is allowed but should be known, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let exposed = self.upstreams.iter().flat_map(|upstream| {
            let urls = upstream.urls.iter().filter(|url| url.exposes_credentials());
            urls.map(|url| {
                format!(
                    "the credentials of {} cross the network unencrypted to {}",
                    upstream.name, url.url
                )
            })
        });
        exposed.chain(self.limits.warning()).collect()
    }
}

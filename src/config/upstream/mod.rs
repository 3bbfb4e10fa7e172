//! `[upstreams."name"]`: the registries that are pulled from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::TagPolicy;

mod builtin;
mod credentials;
mod read;

pub(super) use read::read_all;

/// Key of an upstream in the configuration, lower-case; also its folder on disk and its label in metrics.
///
/// Letters, digits, `.`, `-`, `_` and at most one `:port`; never empty, `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamName(Arc<str>);

/// A registry that is pulled from.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its key.
    pub name: UpstreamName,
    /// Where it answers, tried in order; at least one.
    pub urls: Vec<UpstreamUrl>,
    /// Other names of it, lower-case.
    pub aliases: Vec<String>,
    /// `Host` headers answered for it, lower-case.
    pub hosts: Vec<String>,
    /// Dotless first components answered for it.
    pub prefixes: Vec<String>,
    /// Repositories that may be pulled.
    pub repositories: RepositoryFilter,
    /// Freshness of its tags.
    pub tags: TagPolicy,
    /// Hosts besides its own that may see its credentials at token exchange.
    pub token_hosts: Vec<HostPort>,
    /// Extra certificate authorities, PEM; read again when changed.
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key, PEM, for the first URL's origin alone; read again when changed.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// How connections are made.
    pub proxy: ProxyChoice,
    /// Whether `?ns=<name>` is added to requests (another Layby or mirror upstream).
    pub send_ns: bool,
    /// Steps of one large blob that may be fetched at once.
    pub parallel: u32,
    /// Whether realms and redirects may lead to private, loopback and link-local addresses.
    pub allow_private: bool,
    /// Whether one-component repository names get `library/` (Docker Hub).
    pub library: bool,
}

/// One address of an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamUrl {
    /// Scheme, host, port, and a path prefix that may be empty; no trailing slash in the path, no query, no user.
    pub url: Url,
    /// Credentials for this host alone.
    pub credentials: Option<CredentialSource>,
}

/// Where user and password come from.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// In the configuration.
    Password {
        /// User name.
        username: String,
        /// Password.
        password: SecretString,
    },
    /// Password in a file, without the newline at its end; read again when it changes.
    PasswordFile {
        /// User name.
        username: String,
        /// The file.
        path: PathBuf,
    },
    /// A docker `config.json` (`auths`, `credHelpers`, `credsStore`); read again when it changes.
    DockerConfig(PathBuf),
    /// `docker-credential-<name> get`.
    CredentialHelper(String),
}

/// A host, on the port written or on its scheme's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Lower-case name or address, an IPv6 one in brackets, as in a URL.
    pub host: String,
    /// `None`: the scheme's default port.
    pub port: Option<u16>,
}

/// How an upstream's connections are made.
#[derive(Clone)]
pub enum ProxyChoice {
    /// As `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    Environment,
    /// Always direct (`proxy = "none"`).
    Direct,
    /// Through this HTTP proxy (`http://[user:password@]host:port`).
    Via(Url),
}

/// Globs over repository names: `*` stays within a component, `**` crosses them.
#[derive(Debug, Clone)]
pub struct RepositoryFilter {
    /// Whether `allow` has the pattern that every name matches.
    allows_all: bool,
    allow: globset::GlobSet,
    deny: globset::GlobSet,
}

impl UpstreamUrl {
    /// Whether credentials cross the network unencrypted.
    pub(super) fn exposes_credentials(&self) -> bool {
        let is_local = match self.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
            None => false,
        };
        self.url.scheme() == "http" && self.credentials.is_some() && !is_local
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Direct => f.write_str("Direct"),
            // Without user and password.
            Self::Via(url) => write!(f, "Via({:?}, {:?})", url.host_str(), url.port()),
        }
    }
}

impl UpstreamName {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UpstreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for UpstreamName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let (host, port) = text.split_once(':').unwrap_or((text, "0"));
        let good_host = !host.is_empty()
            && host.len() <= 200
            && !matches!(host, "." | "..")
            && host.bytes().all(is_plain);
        if good_host && port.parse::<u16>().is_ok() {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err("a name of letters, digits, '.', '-', '_', and a port if need be, such as ghcr.io")
        }
    }
}

impl RepositoryFilter {
    /// A filter that lets through what some `allow` pattern matches and no `deny` pattern does.
    pub fn new(allow: &[String], deny: &[String]) -> Result<Self, globset::Error> {
        Ok(Self {
            allows_all: allow.iter().any(|pattern| pattern == "**"),
            allow: globs(allow)?,
            deny: globs(deny)?,
        })
    }

    /// A filter that lets nothing through.
    fn nothing() -> Self {
        Self {
            allows_all: false,
            allow: globset::GlobSet::empty(),
            deny: globset::GlobSet::empty(),
        }
    }

    /// Whether no repository may be pulled, whatever its name: `allow = []`.
    pub fn is_closed(&self) -> bool {
        self.allow.is_empty()
    }

    /// Whether `repository` may be pulled.
    pub fn permits(&self, repository: &crate::oci::RepoName) -> bool {
        let repository = repository.as_str();
        let is_allowed = self.allows_all || self.allow.is_match(repository);
        is_allowed && (self.deny.is_empty() || !self.deny.is_match(repository))
    }
}

fn globs(patterns: &[String]) -> Result<globset::GlobSet, globset::Error> {
    let mut set = globset::GlobSetBuilder::new();
    for pattern in patterns {
        set.add(
            globset::GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()?,
        );
    }
    set.build()
}

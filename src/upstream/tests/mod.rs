//! Upstreams against a registry that does as it is told.

mod blobs;
mod connections;
mod fakes;
mod guests;
mod health;
mod http2;
mod lists;
mod logins;
mod manifests;
mod peers;
mod probes;
mod redirects;
mod tls;
mod tries;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::fakes::{Answer, FakeNetwork, Seen};
use super::net::ProxyEnvironment;
use super::upstreams::Surroundings;
use super::{Call, Error, Upstream, Upstreams};
use crate::config::{self, Config, ProxyChoice, RepositoryFilter, UpstreamUrl};
use crate::oci::{Digest, MediaType, Reference, RepoName};
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;

const ID: &str = "0123abcd";

/// Everything around the upstream under test, with a configuration to change before [`World::upstream`].
struct World {
    network: FakeNetwork,
    environment: Vec<(&'static str, String)>,
    metrics: Arc<Metrics>,
    config: Config,
    upstream: config::Upstream,
}

impl World {
    /// An upstream called `registry.example` at these URLs.
    fn new(urls: &[&str]) -> Self {
        let url = |url: &&str| UpstreamUrl {
            url: url.parse().unwrap(),
            credentials: None,
        };
        Self {
            network: FakeNetwork::default(),
            environment: Vec::new(),
            metrics: Arc::default(),
            config: bare_config(),
            upstream: bare_upstream(urls.iter().map(url).collect()),
        }
    }

    fn upstream(&self) -> Arc<Upstream> {
        let mut config = self.config.clone();
        config.upstreams = vec![Arc::new(self.upstream.clone())];
        let variable = |name: &str| {
            let found = self.environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.clone())
        };
        let surroundings = Surroundings {
            network: Arc::new(self.network.clone()),
            proxies: ProxyEnvironment::read(variable),
        };
        let (clock, tasks) = (Clock::system(), Tasks::new());
        Upstreams::within(&surroundings, &config, ID, &clock, &self.metrics, &tasks)
            .unwrap()
            .get(&self.upstream.name)
            .map(Arc::clone)
            .unwrap()
    }
}

fn bare_config() -> Config {
    Config {
        listen: Vec::new(),
        tls: None,
        data_dir: PathBuf::new(),
        default_upstream: "registry.example".parse().unwrap(),
        offline: false,
        clients: Vec::new(),
        public: false,
        server_names: Vec::new(),
        catalog: false,
        admin: config::Admin { listen: None },
        upstreams: Vec::new(),
        tag_rules: Arc::default(),
        warm: Vec::new(),
        cache: config::Cache {
            max_size: None,
            min_free: config::MinFree::Bytes(0),
            max_age: None,
            scrub_interval: None,
            max_blob_size: None,
            pins: Vec::new(),
        },
        limits: config::Limits {
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(20),
            revalidate_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(30),
            max_connections: None,
            max_connections_per_client: None,
        },
        log: config::Log {
            format: config::LogFormat::Auto,
            filter: String::new(),
        },
    }
}

fn bare_upstream(urls: Vec<UpstreamUrl>) -> config::Upstream {
    config::Upstream {
        name: "registry.example".parse().unwrap(),
        urls,
        aliases: Vec::new(),
        hosts: Vec::new(),
        prefixes: Vec::new(),
        repositories: RepositoryFilter::new(&["**".to_owned()], &[]).unwrap(),
        tags: config::TagPolicy {
            ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::MAX,
            stale_if_gone: Duration::MAX,
            stale_if_denied: Duration::MAX,
            negative_ttl: Duration::ZERO,
        },
        token_hosts: Vec::new(),
        ca_file: None,
        client_cert: None,
        proxy: ProxyChoice::Environment,
        send_ns: false,
        parallel: 1,
        allow_private: false,
        library: false,
    }
}

fn call() -> Call {
    Call {
        deadline: Instant::now() + Duration::from_secs(20),
        via: None,
    }
}

fn repository() -> RepoName {
    "org/app".parse().unwrap()
}

const CONTENT: &[u8] = b"what the blob holds";

fn digest() -> Digest {
    Digest::sha256(CONTENT)
}

/// Fetches the blob whole.
async fn fetch(upstream: &Upstream) -> Result<Vec<u8>, Error> {
    let mut answer = upstream
        .get_blob(&repository(), &digest(), None, &call())
        .await?;
    let mut whole = Vec::new();
    while let Some(bytes) = answer.body.next().await {
        whole.extend_from_slice(&bytes?);
    }
    Ok(whole)
}

const INDEX: &str = MediaType::OCI_INDEX;

fn index_bytes() -> Vec<u8> {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#).into_bytes()
}

/// The answer to every question for a manifest.
fn index(_: &Seen) -> Answer {
    Answer::ok(index_bytes())
        .with("content-type", INDEX)
        .with(
            "docker-content-digest",
            Digest::sha256(&index_bytes()).to_string(),
        )
        .with("etag", "\"e\"")
}

fn tag() -> Reference {
    "latest".parse().unwrap()
}

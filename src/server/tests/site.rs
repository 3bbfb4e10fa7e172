//! A server in this process, on ports of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::administrator::{FakeAdministration, TOKEN};
use super::wire::Reply;
use super::{Fake, Wire};
use crate::config::{Admin, Cache, Config, Limits, Log, LogFormat, MinFree};
use crate::runtime::{Readiness, Tasks};
use crate::server::{Administrator, Server};
use crate::telemetry::Metrics;

pub(super) struct Site {
    pub(super) fake: Arc<Fake>,
    pub(super) administration: Arc<FakeAdministration>,
    pub(super) server: Server,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
}

pub(super) const INSTANCE: &str = "0123abcd";

/// Loopback, a free port each.
pub(super) fn config() -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        listen: vec![any],
        tls: None,
        data_dir: "/nonexistent".into(),
        default_upstream: "docker.io".parse().unwrap(),
        offline: false,
        clients: vec![],
        public: false,
        server_names: vec![],
        catalog: true,
        admin: Admin { listen: Some(any) },
        upstreams: vec![],
        tag_rules: Arc::default(),
        warm: Vec::new(),
        cache: Cache {
            max_size: None,
            min_free: MinFree::Bytes(0),
            max_age: None,
            scrub_interval: None,
            max_blob_size: None,
            pins: Vec::new(),
        },
        limits: Limits {
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(20),
            revalidate_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(30),
            max_connections: None,
            max_connections_per_client: None,
        },
        log: Log {
            format: LogFormat::Auto,
            filter: "info".to_owned(),
        },
    }
}

impl Site {
    pub(super) fn start() -> Self {
        Self::with(&config())
    }

    pub(super) fn with(config: &Config) -> Self {
        let fake = Arc::new(Fake::default());
        let metrics = Arc::new(Metrics::default());
        let readiness = Readiness::new();
        let administration = Arc::new(FakeAdministration::default());
        let administrator = Administrator {
            administration: Arc::clone(&administration) as _,
            token: TOKEN.into(),
        };
        let server = Server::bind(
            config,
            Arc::clone(&fake) as _,
            administrator,
            &readiness,
            Arc::clone(&metrics),
            &Tasks::new(),
            INSTANCE,
        )
        .unwrap();
        Self {
            fake,
            administration,
            server,
            metrics,
            readiness,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    pub(super) async fn connect(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    /// One request on a connection of its own.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Reply {
        self.connect().await.exchange(method, path, headers).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[]).await
    }
}

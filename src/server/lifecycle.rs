//! The server as a whole: from bound addresses to the last response drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::admin::{Admin, Administrator, Api};
use super::admission::{Admission, Capacity};
use super::backend::Content;
use super::connection::Connections;
use super::file::FileReads;
use super::listener::{BindError, Listener};
use super::service::Service;
use super::tls::Certificate;
use crate::config::Config;
use crate::runtime::{Readiness, Tasks};
use crate::telemetry::Metrics;

/// Listeners that are being served.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    admin_address: Option<SocketAddr>,
    readiness: Readiness,
    /// Accept loops of the clients' listeners.
    accepting: Tasks,
    clients: Arc<Connections<Service>>,
    /// Accept loop of the admin listener.
    admin_accepting: Tasks,
    admin: Arc<Connections<Admin>>,
}

impl Server {
    /// Opens every listener that `config` names and starts to serve `content`. Must be called within a tokio runtime.
    ///
    /// `instance_id` is the name by which this instance recognises its own requests. Nothing is served when any of the
    /// listeners cannot be opened.
    pub fn bind(
        config: &Config,
        content: Arc<dyn Content>,
        administrator: Administrator,
        readiness: &Readiness,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
        instance_id: &str,
    ) -> Result<Self, BindError> {
        let plain = Listener::bind_all(&config.listen, "listen")?;
        let (tls, acceptor) = match &config.tls {
            Some(tls) => {
                let certificate = Certificate::load(tls)?;
                let listeners = Listener::bind_all(&tls.listen, "tls.listen")?;
                certificate.watch(tasks);
                (listeners, Some(certificate.handshakes()?))
            }
            None => (Vec::new(), None),
        };
        let admin = config.admin.listen.as_slice();
        let admin = Listener::bind_all(admin, "admin.listen")?;
        let addresses = |listeners: &[Listener]| listeners.iter().map(Listener::address).collect();

        let stall = config.limits.stall_timeout;
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let capacity = Capacity::new(&config.limits, open_files.unwrap_or(u64::MAX));
        let admission = Admission::new(capacity);
        let reads = FileReads::new();
        let service = Service::new(
            config,
            content,
            &reads,
            Arc::clone(&admission),
            Arc::clone(&metrics),
            instance_id,
        );
        let shown = Some(Arc::clone(&metrics));
        let admin_service = Admin {
            api: Api::new(administrator),
            metrics,
            readiness: readiness.clone(),
        };
        let server = Self {
            addresses: addresses(&plain),
            tls_addresses: addresses(&tls),
            admin_address: admin.first().map(Listener::address),
            readiness: readiness.clone(),
            accepting: tasks.child(),
            clients: Connections::new(service, tasks, admission, shown, stall, Some(reads)),
            admin_accepting: tasks.child(),
            admin: Connections::new(
                admin_service,
                tasks,
                Admission::new(ADMIN_CAPACITY),
                None,
                stall,
                None,
            ),
        };
        for listener in plain {
            server.clients.accept(listener, None, &server.accepting);
        }
        for listener in tls {
            let acceptor = acceptor.clone();
            server.clients.accept(listener, acceptor, &server.accepting);
        }
        for listener in admin {
            server.admin.accept(listener, None, &server.admin_accepting);
        }
        Ok(server)
    }

    /// Where plain HTTP is served.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where TLS is served.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Stops: not ready from now on, no new connections, responses under way finish within `grace`, what is left is
    /// cut. Whether nothing had to be. The admin listener goes last, so that probes see the drain.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.readiness.begin_shutdown();
        self.accepting.stop();
        self.accepting.drained(STOP_WAIT).await;
        let clean = self.clients.drain(grace).await;
        self.admin_accepting.stop();
        self.admin.drain(STOP_WAIT).await;
        clean
    }
}

/// Connections to the admin listener; an operator's probes come from few addresses.
const ADMIN_CAPACITY: Capacity = Capacity {
    total: 64,
    per_client: 48,
};
/// For tasks that have nothing to finish.
const STOP_WAIT: Duration = Duration::from_secs(1);

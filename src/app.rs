//! Puts the parts together. The only file that knows them all.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::Config;
use crate::proxy::Proxy;
use crate::proxy::admin::{Administration, Keeper};
use crate::runtime::{Clock, Readiness, Tasks};
use crate::server::{Administrator, BindError, Server};
use crate::store::{Disk, Files, Formats, OpenError, Store, StoreOptions};
use crate::telemetry::Metrics;
use crate::upstream::{SetupError, Upstreams};

/// What a process has one of, and tests replace.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Wall-clock time.
    pub clock: Clock,
    /// The file layer under the store.
    pub files: Arc<dyn Files>,
    /// The formats of a data directory that are known.
    pub formats: Formats,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            files: Arc::new(Disk),
            formats: Formats::default(),
        }
    }
}

/// Why Layby does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// An upstream's certificates or addresses.
    #[error(transparent)]
    Upstream(#[from] SetupError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system has no threads to give.
    #[error("cannot start worker threads: {0}")]
    Threads(io::Error),
}

/// What answers for content, over a data directory that is in use.
struct Parts {
    proxy: Proxy,
    instance: String,
    token: SecretString,
}

impl Parts {
    /// Takes the data directory into use. Fetches are tasks of the first group, the store's own of the second.
    async fn open(
        config: &Config,
        environment: Environment,
        metrics: &Arc<Metrics>,
        (tasks, store_tasks): (&Tasks, &Tasks),
        lock_wait: Duration,
    ) -> Result<Self, StartError> {
        let Environment {
            clock,
            files,
            formats,
        } = environment;
        let options = StoreOptions {
            data_dir: config.data_dir.clone(),
            max_size: config.cache.max_size,
            min_free: config.cache.min_free,
            max_age: config.cache.max_age,
            evicts: !config.offline,
            lock_wait,
            offline: config.offline,
        };
        let (counted, of_store) = (Arc::clone(metrics), store_tasks.clone());
        let store = Store::open_as(formats, options, files, clock.clone(), counted, of_store);
        let store = store.await?;
        let instance = store.instance_id().to_owned();
        let token = store.admin_token()?;
        let upstreams = Upstreams::new(config, &instance, &clock, metrics, tasks)?;
        let proxy = Proxy::new(
            config,
            store,
            Arc::new(upstreams),
            clock,
            Arc::clone(metrics),
            tasks.clone(),
        )
        .map_err(StartError::Threads)?;
        Ok(Self {
            proxy,
            instance,
            token,
        })
    }
}

/// A running Layby.
#[derive(Debug)]
pub struct App {
    server: Server,
    /// Fetches, and writes behind answers.
    tasks: Tasks,
    /// The store's own: it stops when nobody commits any more.
    store_tasks: Tasks,
    grace: Duration,
}

impl App {
    /// Opens the data directory and the listeners, and serves. No upstream is asked for that.
    pub async fn start(config: Config, environment: Environment) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::default());
        let tasks = Tasks::counted_by(&metrics.process.tasks);
        let store_tasks = Tasks::counted_by(&metrics.process.tasks);
        let readiness = Readiness::new();
        let parts = Parts::open(
            &config,
            environment,
            &metrics,
            (&tasks, &store_tasks),
            LOCK_WAIT,
        );
        let Parts {
            proxy,
            instance,
            token,
        } = parts.await?;
        let administrator = Administrator {
            administration: proxy.administration(),
            token,
        };
        let server = Server::bind(
            &config,
            Arc::new(proxy),
            administrator,
            &readiness,
            metrics,
            &tasks,
            &instance,
        )?;
        Ok(Self {
            server,
            tasks,
            store_tasks,
            grace: config.limits.shutdown_grace,
        })
    }

    /// Where plain HTTP is served.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// Where TLS is served.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        self.server.tls_addresses()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.server.admin_address()
    }

    /// Stops: responses under way finish within the grace, then fetches end, then what was to be written is written.
    /// Whether every response finished.
    pub async fn stop(self) -> bool {
        let clean = self.server.shutdown(self.grace).await;
        self.tasks.stop();
        self.tasks.drained(WRITE_OUT).await;
        self.store_tasks.stop();
        self.store_tasks.drained(WRITE_OUT).await;
        clean
    }
}

/// A data directory that nobody serves, for administration alone.
pub struct AtRest {
    administration: Arc<dyn Administration>,
    tasks: Tasks,
    store_tasks: Tasks,
}

impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtRest").finish_non_exhaustive()
    }
}

impl AtRest {
    /// Takes the data directory into use; [`OpenError::Locked`] at once while another process does.
    pub async fn open(config: &Config, environment: Environment) -> Result<Self, OpenError> {
        let (tasks, store_tasks) = (Tasks::new(), Tasks::new());
        let metrics = Arc::new(Metrics::default());
        let Environment {
            clock,
            files,
            formats,
        } = environment;
        let options = StoreOptions {
            data_dir: config.data_dir.clone(),
            max_size: config.cache.max_size,
            min_free: config.cache.min_free,
            max_age: config.cache.max_age,
            evicts: false,
            lock_wait: Duration::ZERO,
            offline: config.offline,
        };
        let (shared, of_store) = (Arc::clone(&metrics), store_tasks.clone());
        let store =
            Store::open_as(formats, options, files, clock.clone(), shared, of_store).await?;
        let keeper = Keeper::at_rest(config, store, clock, metrics, tasks.clone());
        let keeper = keeper.map_err(|source| OpenError::Io {
            action: "read",
            path: config.data_dir.clone(),
            source,
        })?;
        Ok(Self {
            administration: Arc::new(keeper),
            tasks,
            store_tasks,
        })
    }

    /// The same, with all that it takes to ask upstreams. A directory that is not there yet is made.
    pub async fn open_to_fetch(
        config: &Config,
        environment: Environment,
    ) -> Result<Self, StartError> {
        // What a server does by itself is not for one that is gone in a moment.
        let mut config = config.clone();
        config.cache.scrub_interval = None;
        config.warm.clear();
        let metrics = Arc::new(Metrics::default());
        let (tasks, store_tasks) = (Tasks::new(), Tasks::new());
        let parts = Parts::open(
            &config,
            environment,
            &metrics,
            (&tasks, &store_tasks),
            Duration::ZERO,
        )
        .await?;
        Ok(Self {
            administration: parts.proxy.administration(),
            tasks,
            store_tasks,
        })
    }

    /// What can be asked of it.
    pub fn administration(&self) -> Arc<dyn Administration> {
        Arc::clone(&self.administration)
    }

    /// Gives the directory up, once all is written.
    pub async fn close(self) {
        self.tasks.stop();
        self.tasks.drained(WRITE_OUT).await;
        self.store_tasks.stop();
        self.store_tasks.drained(WRITE_OUT).await;
    }
}

/// How long a data directory that another process uses is waited for, as when a new version takes over.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// For what is still to be written after the last response.
const WRITE_OUT: Duration = Duration::from_secs(10);

//! All upstreams of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::agent::Agent;
use super::client::Upstream;
use super::endpoint::Endpoint;
use super::health::{Origins, Turns};
use super::net::{
    Connector, Network, Origin, Pool, ProxyEnvironment, ProxyError, SystemNetwork, SystemRoots,
    Tls, without_secrets,
};
use crate::config::{self, Config, UpstreamName};
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;

/// The upstreams by name.
#[derive(Debug)]
pub struct Upstreams(BTreeMap<UpstreamName, Arc<Upstream>>);

/// Why the upstreams of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A proxy that cannot be used.
    #[error("upstream {upstream}: {why}")]
    Proxy {
        /// Which upstream would use it.
        upstream: UpstreamName,
        /// What is wrong with it; never its password.
        why: String,
    },
    /// The system has no threads to give.
    #[error("cannot start threads to resolve names: {0}")]
    Threads(#[from] std::io::Error),
    /// A URL without host, or of another scheme than `http` and `https`.
    #[error(
        "upstream {upstream}: {url} is not the URL of a registry; write it as https://host[:port][/prefix]"
    )]
    Url {
        /// Which upstream.
        upstream: UpstreamName,
        /// The URL.
        url: String,
    },
    /// A URL whose path cannot be a part of repository names.
    #[error(
        "upstream {upstream}: the path of {url} goes before its repositories' names, so it must be written as they \
        are: lower-case letters and digits, separated by '.', '_', '__', dashes and '/'"
    )]
    Path {
        /// Which upstream.
        upstream: UpstreamName,
        /// The URL.
        url: String,
    },
}

/// What the process finds around it, as values.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Names and sockets.
    pub(super) network: Arc<dyn Network>,
    /// Proxy variables of the environment.
    pub(super) proxies: Result<ProxyEnvironment, ProxyError>,
}

impl Upstreams {
    /// The upstreams of `config`. Reads the environment's proxy variables; opens nothing.
    pub fn new(
        config: &Config,
        instance_id: &str,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Self, SetupError> {
        let surroundings = Surroundings {
            network: Arc::new(SystemNetwork::new()?),
            proxies: ProxyEnvironment::from_env(),
        };
        Self::within(&surroundings, config, instance_id, clock, metrics, tasks)
    }

    /// The upstreams of `config` in the given surroundings.
    pub(super) fn within(
        surroundings: &Surroundings,
        config: &Config,
        instance_id: &str,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Result<Self, SetupError> {
        let builder = Builder {
            config,
            network: &surroundings.network,
            environment: surroundings.proxies.clone().map(Arc::new),
            roots: Arc::new(SystemRoots::default()),
            instance_id: instance_id.into(),
            clock,
            metrics,
            tasks,
        };
        config
            .upstreams
            .iter()
            .map(|upstream| Ok((upstream.name.clone(), Arc::new(builder.upstream(upstream)?))))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The upstream of this name.
    pub fn get(&self, name: &UpstreamName) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.values()
    }
}

struct Builder<'a> {
    config: &'a Config,
    network: &'a Arc<dyn Network>,
    environment: Result<Arc<ProxyEnvironment>, ProxyError>,
    roots: Arc<SystemRoots>,
    instance_id: Arc<str>,
    clock: &'a Clock,
    metrics: &'a Arc<Metrics>,
    tasks: &'a Tasks,
}

impl Builder<'_> {
    fn upstream(&self, upstream: &Arc<config::Upstream>) -> Result<Upstream, SetupError> {
        let showing = |client_cert| {
            let (ca_file, roots) = (upstream.ca_file.clone(), Arc::clone(&self.roots));
            Arc::new(Tls::new(ca_file, client_cert, roots))
        };
        let nothing = showing(None);
        let certificate = match &upstream.client_cert {
            Some(pair) => showing(Some(pair.clone())),
            None => Arc::clone(&nothing),
        };
        let first = upstream.urls.first().and_then(|url| Origin::of(&url.url));
        let own = upstream.urls.iter().filter_map(|url| Origin::of(&url.url));
        let (clock, metrics) = (self.clock.clone(), Arc::clone(self.metrics));
        let origins = Arc::new(Origins::new(&upstream.name, own.collect(), clock, metrics));
        let endpoints = upstream.urls.iter().map(|url| {
            let is_first = Origin::of(&url.url) == first;
            let tls = if is_first { &certificate } else { &nothing };
            self.endpoint(upstream, url, &origins, tls, &nothing)
        });
        Ok(Upstream {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            config: Arc::clone(upstream),
            instance_id: Arc::clone(&self.instance_id),
            offline: self.config.offline,
            stall_timeout: self.config.limits.stall_timeout,
            metrics: Arc::clone(self.metrics),
            turns: Turns::default(),
        })
    }

    fn endpoint(
        &self,
        upstream: &Arc<config::Upstream>,
        url: &config::UpstreamUrl,
        origins: &Arc<Origins>,
        tls: &Arc<Tls>,
        foreign_tls: &Arc<Tls>,
    ) -> Result<Endpoint, SetupError> {
        let home = Origin::of(&url.url).ok_or_else(|| SetupError::Url {
            upstream: upstream.name.clone(),
            url: without_secrets(&url.url),
        })?;
        let unusable = |why: ProxyError| SetupError::Proxy {
            upstream: upstream.name.clone(),
            why: why.to_string(),
        };
        let environment = match (&self.environment, &upstream.proxy) {
            (Ok(environment), _) => Arc::clone(environment),
            (Err(error), config::ProxyChoice::Environment) if !self.config.offline => {
                return Err(unusable(error.clone()));
            }
            (Err(_), _) => Arc::default(),
        };
        let connector = Connector::new(
            upstream,
            home.clone(),
            Arc::clone(self.network),
            &environment,
            Arc::clone(tls),
            Arc::clone(foreign_tls),
            self.config.limits.connect_timeout,
        )
        .map_err(unusable)?;
        let agent = Arc::new(Agent::new(
            Pool::new(connector, self.tasks.clone()),
            Arc::clone(origins),
            self.clock.clone(),
        ));
        Endpoint::new(
            upstream,
            url,
            home,
            agent,
            self.clock.clone(),
            Arc::clone(self.metrics),
        )
    }
}

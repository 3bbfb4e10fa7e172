//! Whose a repository is: from what the client wrote to one upstream of the configuration, or to none.
//!
//! The world is closed: whatever a client writes is looked up among the configured names and is never a host to connect to.

use std::sync::Arc;

use super::Place;
use crate::config::{Config, Upstream, UpstreamName};
use crate::oci::{NameError, RepoName, Target};

mod hosts;

use hosts::{Hosts, is_same, split_port};

/// Chooses the upstream of a request.
///
/// It is chosen by the first of these that names one:
/// 1. a prefix before `/v2/`: a key, an alias or one of an upstream's `prefixes`;
/// 2. the first component of the repository, which is taken off: a key or an alias if it has a dot or a port, one of an
///    upstream's `prefixes` if not;
/// 3. `?ns=`, unless it is ourselves;
/// 4. the `Host` header, where an upstream lists it in `hosts`;
/// 5. the default upstream, unless the client named a registry that nobody configured.
#[derive(Debug)]
pub struct Selector {
    upstreams: Vec<Arc<Upstream>>,
    default: Option<usize>,
    /// Keys and aliases.
    names: Hosts,
    prefixes: Hosts,
    hosts: Hosts,
    server_names: Vec<String>,
}

/// Where a request is to be answered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The upstream and its repository.
    pub place: Place,
    /// Value of `ns`, if that decided: echoed in `OCI-Namespace`, and kept in links.
    pub ns: Option<String>,
    /// The path before `/tags/list` and the like, as the client wrote it: `/ghcr.io/v2/org/app`.
    pub link_base: String,
}

/// Why a request has no upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The client named a registry, or a way to one, that the configuration does not have.
    #[error("this mirror knows no registry by {what}: {hint}")]
    Unknown {
        /// What named it.
        what: String,
        /// What to configure or to write instead.
        hint: String,
    },
    /// The upstream's `allow` and `deny` keep the repository out.
    #[error(
        "{repository} of {upstream} is not mirrored here: allow and deny of this upstream keep it out"
    )]
    Forbidden {
        /// The upstream.
        upstream: UpstreamName,
        /// The repository, by its name there.
        repository: RepoName,
    },
    /// With `library/` before it the repository's name is none any more.
    #[error("{repository} cannot be a repository of {upstream}: {error}")]
    Name {
        /// The upstream.
        upstream: UpstreamName,
        /// The repository as written.
        repository: RepoName,
        /// What is wrong with it.
        error: NameError,
    },
}

/// An upstream that has been chosen, by its index, and what its repository is called.
struct Choice {
    upstream: usize,
    repository: RepoName,
    by_ns: bool,
}

impl Selector {
    /// Learns the names of all upstreams.
    pub fn new(config: &Config) -> Self {
        Self::of(
            &config.upstreams,
            &config.default_upstream,
            &config.server_names,
        )
    }

    fn of(upstreams: &[Arc<Upstream>], default: &UpstreamName, server_names: &[String]) -> Self {
        let mut names = Hosts::default();
        let mut prefixes = Hosts::default();
        let mut hosts = Hosts::default();
        for (index, upstream) in upstreams.iter().enumerate() {
            names.add(upstream.name.as_str(), index);
        }
        for (index, upstream) in upstreams.iter().enumerate() {
            upstream
                .aliases
                .iter()
                .for_each(|name| names.add(name, index));
            upstream
                .prefixes
                .iter()
                .for_each(|name| prefixes.add(name, index));
            upstream
                .hosts
                .iter()
                .for_each(|name| hosts.add_listener(name, index));
        }
        // What is written in the configuration goes before what follows from it.
        for (index, upstream) in upstreams.iter().enumerate() {
            let port = default_port(upstream);
            for name in std::iter::once(upstream.name.as_str()).chain(aliases(upstream)) {
                names.add_other_spelling(name, port, index);
                // Clients mean https unless told otherwise, however the upstream is reached from here.
                names.add_other_spelling(name, 443, index);
            }
            for name in &upstream.hosts {
                hosts.add_other_spelling(name, 80, index);
                hosts.add_other_spelling(name, 443, index);
            }
        }
        Self {
            upstreams: upstreams.to_vec(),
            default: upstreams.iter().position(|one| one.name == *default),
            names,
            prefixes,
            hosts,
            server_names: server_names.to_vec(),
        }
    }

    /// Chooses where `target` is answered from, given the request's `Host` header.
    pub fn select(&self, target: &Target, host: Option<&str>) -> Result<Selected, SelectError> {
        let choice = match &target.prefix {
            Some(prefix) => self.by_prefix(prefix, target)?,
            None => match self.by_first_component(target)? {
                Some(choice) => choice,
                None => self.by_circumstances(target, host)?,
            },
        };
        self.admit(choice, target)
    }

    /// How a client writes a repository in an image name that this mirror's address goes before: without its upstream's
    /// name if that is the default, else behind the first of key, aliases and `prefixes` that leads back to it. Where none
    /// does, behind the key, which then works before `/v2/` only.
    pub fn written(&self, place: &Place) -> String {
        let repository = place.repository.as_str();
        let known = self.upstreams.iter().find(|one| one.name == place.upstream);
        let names = known.into_iter().flat_map(|upstream| {
            std::iter::once(upstream.name.as_str())
                .chain(aliases(upstream))
                .chain(upstream.prefixes.iter().map(String::as_str))
        });
        std::iter::once(repository.to_owned())
            .chain(names.map(|name| format!("{name}/{repository}")))
            .find(|written| self.leads_to(written, place))
            .unwrap_or_else(|| format!("{}/{repository}", place.upstream))
    }

    /// Whether an image name that says no more than `written` is that of `place`.
    fn leads_to(&self, written: &str, place: &Place) -> bool {
        let Ok(repository) = written.parse() else {
            return false;
        };
        let target = Target {
            prefix: None,
            registry: None,
            repository,
            ns: None,
        };
        self.select(&target, None)
            .is_ok_and(|selected| selected.place == *place)
    }

    /// Step 1.
    fn by_prefix(&self, prefix: &str, target: &Target) -> Result<Choice, SelectError> {
        let found = self.names.get(prefix).or_else(|| self.prefixes.get(prefix));
        match (found, &target.registry) {
            (Some(upstream), None) => Ok(Choice::whole(upstream, target)),
            _ => Err(self.unknown("the prefix", prefix)),
        }
    }

    /// Step 2. `None` when the first component names no upstream.
    fn by_first_component(&self, target: &Target) -> Result<Option<Choice>, SelectError> {
        if let Some(registry) = &target.registry {
            return match self.names.get(registry) {
                Some(upstream) => Ok(Some(Choice::whole(upstream, target))),
                None => Err(self.unknown("the first component", registry)),
            };
        }
        let (first, rest) = first_component(&target.repository);
        let known = if first.contains('.') {
            &self.names
        } else {
            &self.prefixes
        };
        let Some(upstream) = known.get(first) else {
            return Ok(None);
        };
        match rest.map(str::parse) {
            Some(Ok(repository)) => Ok(Some(Choice {
                upstream,
                repository,
                by_ns: false,
            })),
            _ => Err(SelectError::Unknown {
                what: format!("a path that ends with {first:?}"),
                hint: format!("write the repository behind it, as in {first}/org/app"),
            }),
        }
    }

    /// Steps 3 to 5: the repository stays as it is written.
    fn by_circumstances(&self, target: &Target, host: Option<&str>) -> Result<Choice, SelectError> {
        let ns = target
            .ns
            .as_deref()
            .filter(|ns| !self.is_ourselves(ns, host));
        if let Some(upstream) = ns.and_then(|ns| self.names.get(ns)) {
            return Ok(Choice {
                by_ns: true,
                ..Choice::whole(upstream, target)
            });
        }
        if let Some(upstream) = host.and_then(|host| self.hosts.get_listener(host)) {
            return Ok(Choice::whole(upstream, target));
        }
        if let Some(ns) = ns {
            return Err(self.unknown("the ns", ns));
        }
        let (first, _) = first_component(&target.repository);
        match self.default {
            Some(upstream) if !first.contains('.') => Ok(Choice::whole(upstream, target)),
            _ => Err(self.unknown("the first component", first)),
        }
    }

    /// Gives the repository its name at the upstream and asks the upstream's filter.
    fn admit(&self, choice: Choice, target: &Target) -> Result<Selected, SelectError> {
        let Some(upstream) = self.upstreams.get(choice.upstream) else {
            return Err(self.unknown("the path", &target.path()));
        };
        let is_short = !choice.repository.as_str().contains('/');
        let repository = if upstream.library && is_short {
            choice
                .repository
                .prefixed("library")
                .map_err(|error| SelectError::Name {
                    upstream: upstream.name.clone(),
                    repository: choice.repository,
                    error,
                })?
        } else {
            choice.repository
        };
        if !upstream.repositories.permits(&repository) {
            return Err(SelectError::Forbidden {
                upstream: upstream.name.clone(),
                repository,
            });
        }
        Ok(Selected {
            place: Place {
                upstream: upstream.name.clone(),
                repository,
            },
            ns: target.ns.clone().filter(|_| choice.by_ns),
            link_base: target.path(),
        })
    }

    /// Whether `ns` is a name of ours: the `Host` that was asked, or one of `server_names` on any port that is not
    /// expressly an upstream's.
    fn is_ourselves(&self, ns: &str, host: Option<&str>) -> bool {
        if host.is_some_and(|host| is_same(ns, host)) {
            return true;
        }
        let (name, port) = split_port(ns);
        let is_server_name = self
            .server_names
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name));
        is_server_name && (port.is_none() || self.names.get(ns).is_none())
    }

    fn unknown(&self, kind: &str, name: &str) -> SelectError {
        let name: String = name.chars().take(MOST_SHOWN).collect();
        let hint = match self
            .names
            .with_a_port(&name)
            .and_then(|i| self.upstreams.get(i))
        {
            Some(upstream) => format!(
                "list {name:?} in the aliases of [upstreams.{:?}]",
                upstream.name.as_str()
            ),
            None => format!(
                "add [upstreams.{name:?}] with its url to the configuration, or list {name:?} in the aliases of another \
                 upstream"
            ),
        };
        SelectError::Unknown {
            what: format!("{kind} {name:?}"),
            hint,
        }
    }
}

impl Choice {
    /// `upstream`, and the repository as it is written.
    fn whole(upstream: usize, target: &Target) -> Self {
        Self {
            upstream,
            repository: target.repository.clone(),
            by_ns: false,
        }
    }
}

/// Longest name in a message.
const MOST_SHOWN: usize = 128;

fn first_component(repository: &RepoName) -> (&str, Option<&str>) {
    match repository.as_str().split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (repository.as_str(), None),
    }
}

fn aliases(upstream: &Upstream) -> impl Iterator<Item = &str> {
    upstream.aliases.iter().map(String::as_str)
}

/// The port of an upstream that goes without saying.
fn default_port(upstream: &Upstream) -> u16 {
    let is_plain = upstream
        .urls
        .first()
        .is_some_and(|first| first.url.scheme() == "http");
    if is_plain { 80 } else { 443 }
}

#[cfg(test)]
mod tests;

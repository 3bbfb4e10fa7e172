//! Looks at an upstream without pulling anything, for people who want to know what is wrong with it.

use tokio::time::Instant;

use super::client::Upstream;
use super::endpoint::Endpoint;
use super::{Access, Error};

/// How one URL of an upstream answers.
#[derive(Debug)]
pub struct Probe {
    /// The URL, without anything secret.
    pub url: String,
    /// The proxy that connections to it go through, without user and password.
    pub proxy: Option<String>,
    /// Whether it lets us in, or what is in the way: a name, a connection, a certificate, a login.
    pub outcome: Result<Access, Error>,
}

impl Upstream {
    /// Asks each URL for its `/v2/` and, where a token is wanted, for one, with our login where there is one.
    pub async fn probe(&self, deadline: Instant) -> Result<Vec<Probe>, Error> {
        if self.offline {
            return Err(Error::Offline);
        }
        let probes = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.probe(deadline));
        Ok(futures_util::future::join_all(probes).await)
    }
}

impl Endpoint {
    async fn probe(&self, deadline: Instant) -> Probe {
        Probe {
            url: self.base(),
            proxy: self.proxy(),
            outcome: self.look(deadline).await,
        }
    }
}

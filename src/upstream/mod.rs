//! The registries that are pulled from: connections, authentication, redirects, and the rules of what is an answer.
//!
//! Owns everything that is said to an upstream. Keeps no content and decides nothing about freshness or membership.
//! A question goes from `client` (the URLs of an upstream in turn) to `endpoint` (one URL: login, redirects) to `net`
//! (one request); what comes back is judged in `manifest`, `blob` and `list`. `health` says who is left alone meanwhile.
//! Imports `oci` values, `config` values, `telemetry` and `runtime`; never `store` or `flight`.

mod agent;
mod answer;
mod auth;
mod blob;
mod client;
mod endpoint;
mod error;
mod exchange;
mod failure;
mod health;
mod list;
mod manifest;
mod net;
mod paths;
mod probe;
mod redirect;
mod said;
#[cfg(test)]
mod tests;
mod upstreams;
mod via;

pub use auth::Access;
pub use blob::{BlobAnswer, BlobBody, BlobHead};
pub use client::{Call, Upstream};
pub use error::Error;
pub use list::ListAnswer;
pub use manifest::{Manifest, ManifestHead};
pub use probe::Probe;
pub use upstreams::{SetupError, Upstreams};
pub use via::is_own_via;

//! The decisions: hit, miss, join, stale, bypass; freshness, negative answers, membership.
//!
//! Adapts `store` and `upstream` to the traits that `flight` owns. Picks no status code: that is `server/reject.rs`.
//! Imports `flight`, `store`, `upstream`, `oci`, `config` values, `telemetry` and `runtime`.

mod adapt;
pub mod admin;
mod answer;
mod blob_answer;
mod blobs;
mod catalog;
mod context;
mod error;
mod facade;
mod freshness;
mod lists;
mod manifests;
mod membership;
mod outcome;
mod ports;
mod recent;
mod retention;
mod select;
mod singles;
mod tags;
#[cfg(test)]
mod testing;
pub mod warm;

pub use answer::{BlobUse, CatalogPage, ListAnswer, ManifestAnswer};
pub use blob_answer::{BlobAnswer, BlobContent, BlobReader, BrokenBody};
pub use error::{Error, What};
pub use facade::Proxy;
pub use outcome::{BypassReason, CacheOutcome, StaleReason};
pub use select::{SelectError, Selected, Selector};

use crate::config::UpstreamName;
use crate::oci::RepoName;

/// A repository of an upstream: where content belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The upstream.
    pub upstream: UpstreamName,
    /// Its repository, with `library/` where Docker Hub wants it.
    pub repository: RepoName,
}

//! The registries that are pulled from: connections, authentication, redirects, and the rules of what is an answer.
//!
//! Owns everything that is said to an upstream. Keeps no content and decides nothing about freshness or membership.
//! Imports `oci` values, `config` values, `telemetry` and `runtime`; never `store` or `flight`.

mod error;
mod exchange;

pub use error::Error;

//! Layby: a caching pull-through proxy for container registries.

pub mod app;
pub mod cli;
pub mod config;
pub mod flight;
pub mod oci;
pub mod proxy;
pub mod runtime;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;

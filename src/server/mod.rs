//! The downstream side: listeners, TLS, HTTP, and what registries' clients get to see.
//!
//! Owns everything between a client's socket and a question to the proxy: it reads the request, asks for content, and
//! drives it out at the client's speed. `reject.rs` is the only place that picks a status code and an OCI error code for
//! a failure. It never decides what is cached, and never opens a connection. Imports `proxy` (and the errors of
//! `upstream` that it passes on), the chunks of `flight::ports`, `oci`, `config` values, `telemetry` and `runtime`.

mod admin;
mod admission;
mod answer;
mod backend;
mod blob;
mod body;
mod carrier;
mod clients;
mod conditional;
mod connection;
mod file;
mod handlers;
mod lifecycle;
mod linger;
mod listener;
mod record;
mod refusal;
mod reject;
mod request_body;
mod request_id;
mod sending;
mod service;
mod stall;
mod streams;
mod tls;

#[cfg(test)]
mod tests;

pub use admin::Administrator;
pub use backend::Content;
pub use lifecycle::Server;
pub use listener::BindError;
pub use tls::TlsError;

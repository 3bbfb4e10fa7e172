//! Layby as a whole, against registries that do what they are told, over real sockets.

#[path = "../support/forgetful.rs"]
mod forgetful;

mod auth;
mod cold;
mod crash;
mod fake;
mod lies;
mod lists;
mod log;
mod membership;
mod offline;
mod peers;
mod routing;
mod support;
mod tags;
mod wire;

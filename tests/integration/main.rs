//! Layby as a whole, against registries that do what they are told, over real sockets.

#[path = "../support/forgetful.rs"]
mod forgetful;

mod admin;
mod auth;
mod carry;
mod cold;
mod command_line;
mod crash;
mod deletions;
mod deployment;
mod doctor;
mod eviction;
mod fake;
mod far_ranges;
mod full_disk;
mod lies;
mod lists;
mod log;
mod membership;
mod moved;
mod offline;
mod outages;
mod peers;
mod resume;
mod routing;
mod service;
mod support;
mod tags;
mod warm;
mod wire;

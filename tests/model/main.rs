//! Tests against models: random sequences of operations, and the power going at any of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/forgetful.rs"]
mod forgetful;
mod store;
mod store_power;
mod store_random;
mod store_resume;

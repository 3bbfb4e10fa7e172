//! Tests against models: random sequences of operations, and the power going at any of them.

#[path = "../support/forgetful.rs"]
mod forgetful;
mod store;
mod store_power;
mod store_random;

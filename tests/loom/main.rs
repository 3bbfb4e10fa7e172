//! Every interleaving of newcomers, leaders, commits and lost leaders, over the very code that decides who fetches:
//! `src/flight/claims.rs` and `src/flight/lookup.rs`. No blob is fetched twice, and no reader waits for ever.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the product's files are included, and the model fails by panicking"
)]

#[path = "../../src/flight/claims.rs"]
mod claims;
#[path = "../../src/flight/lookup.rs"]
mod lookup;
mod model;
mod sync;

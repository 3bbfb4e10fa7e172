//! One file for each route: what is asked of the proxy, and which headers the answer has.
//!
//! A handler answers as for `GET`; `answer.rs` makes the `HEAD` of it. None picks an error's status: they return a
//! `Rejection`.

pub(super) mod base;
pub(super) mod blobs;
pub(super) mod catalog;
pub(super) mod health;
mod list;
pub(super) mod manifests;
pub(super) mod referrers;
pub(super) mod tags;

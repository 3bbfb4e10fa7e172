//! The locks that the table of flights is made of. The loom test puts its own in their place.

pub(super) use std::sync::Arc;

pub(super) use parking_lot::Mutex;

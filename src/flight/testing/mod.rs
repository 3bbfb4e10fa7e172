//! What tests put in the place of the disk and the upstreams: a store in memory, and sources that do as they are told.

mod memory;
mod origin;
mod scripted;

pub(crate) use memory::MemoryBlobs;
pub(crate) use origin::{Fault, Origin, OriginSource};
pub(crate) use scripted::{Failed, Scripted};

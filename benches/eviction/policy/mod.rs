//! Ways to choose what goes. Each knows nothing but what it was told: what came in, what was used, what went.

mod belady;
mod fifo;
mod gdsf;
mod lru;
mod s3fifo;
mod segmented;
mod sieve;

use crate::images::Object;
use crate::trace::Trace;

/// Something on disk after a restart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    pub(crate) size: u64,
    /// Second of the last use.
    pub(crate) used: u32,
}

/// A way to choose what goes.
pub(crate) trait Policy {
    /// Any request, and its number, before it is served.
    fn asked(&mut self, _object: Object, _number: u32) {}

    /// A request for what is stored, at a second.
    fn hit(&mut self, object: Object, at: u32);

    /// What was not stored now is.
    fn insert(&mut self, object: Object, size: u64, at: u32);

    /// The next to go, which is gone then.
    fn evict(&mut self) -> Option<Object>;

    /// Everything known is lost but this, from what was used longest ago.
    fn restart(&mut self, left: &[Stored]);
}

/// A name, and how the policy is made for a trace and a capacity.
pub(crate) type Entry = (&'static str, fn(&Trace, u64) -> Box<dyn Policy>);

/// What the store does.
pub(crate) const CHOSEN: &str = "SLRU";

/// What sees the future.
pub(crate) const BOUND: &str = "Belady";

/// What is compared, the floor first and what cannot be had last.
pub(crate) const ALL: &[Entry] = &[
    ("FIFO", |_, _| Box::new(fifo::Fifo::default())),
    ("LRU", |_, _| Box::new(lru::Lru::default())),
    ("SIEVE", |_, _| Box::new(sieve::Sieve::default())),
    ("S3-FIFO", |_, capacity| {
        Box::new(s3fifo::S3Fifo::new(capacity))
    }),
    ("GDSF", |_, _| Box::new(gdsf::Gdsf::by_requests())),
    ("LFU-DA", |_, _| Box::new(gdsf::Gdsf::by_bytes())),
    (CHOSEN, |_, capacity| {
        Box::new(segmented::Segmented::new(capacity))
    }),
    (BOUND, |trace, _| Box::new(belady::Belady::new(trace))),
];

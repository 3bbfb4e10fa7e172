//! Blobs that are about to go, in the hands of whoever has chosen them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Demand, Usage, Victim};
use crate::runtime::Clock;

/// Chosen blobs, in the order that they were chosen in. When it is dropped, whyever that is, those that are still there
/// can be chosen again.
#[derive(Debug)]
pub(in crate::store) struct Chosen {
    usage: Arc<Usage>,
    clock: Clock,
    victims: VecDeque<Victim>,
    bytes: u64,
}

impl Chosen {
    /// None yet.
    pub(in crate::store) fn new(usage: &Arc<Usage>, clock: &Clock) -> Self {
        Self {
            usage: Arc::clone(usage),
            clock: clock.clone(),
            victims: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Chooses up to `most` more; whether there were any.
    pub(in crate::store) fn add(&mut self, demand: Demand, most: usize) -> bool {
        let more = self.usage.choose(demand, most, self.clock.now());
        let is_more = !more.is_empty();
        self.bytes = self.bytes.saturating_add(sum(&more));
        self.victims.extend(more);
        is_more
    }

    /// Chooses all that is demanded, or what there is of it. Blocks for as long as it is much, but nobody else.
    pub(in crate::store) fn add_all(&mut self, demand: Demand) {
        let before = self.bytes;
        while self.add(demand.less(self.bytes.saturating_sub(before)), AT_ONCE) {}
    }

    /// Takes the first out.
    pub(in crate::store) fn take_first(&mut self, most: usize) -> Self {
        let count = self.victims.len().min(most);
        let victims: VecDeque<Victim> = self.victims.drain(..count).collect();
        let bytes = sum(&victims);
        self.bytes = self.bytes.saturating_sub(bytes);
        Self {
            usage: Arc::clone(&self.usage),
            clock: self.clock.clone(),
            victims,
            bytes,
        }
    }

    /// The blobs.
    pub(in crate::store) fn victims(&self) -> impl Iterator<Item = &Victim> {
        self.victims.iter()
    }

    /// How many there are.
    pub(in crate::store) fn count(&self) -> usize {
        self.victims.len()
    }

    /// How many bytes they have.
    pub(in crate::store) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.usage.put_back(self.victims.make_contiguous(), now);
    }
}

fn sum<'a>(victims: impl IntoIterator<Item = &'a Victim>) -> u64 {
    let lens = victims.into_iter().map(|victim| victim.len);
    lens.fold(0, u64::saturating_add)
}

/// Blobs chosen under one lock.
const AT_ONCE: usize = 512;

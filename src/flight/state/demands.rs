//! What readers of parts are waiting for. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Tells a flight's readers of parts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::flight) struct ReaderId(u64);

#[derive(Debug)]
struct Demand {
    /// What the reader has not read yet.
    rest: Range<u64>,
    queued: bool,
}

/// The readers of parts, and those of them that nothing is on the way for, in the order in which they began to wait.
#[derive(Debug, Default)]
pub(super) struct Demands {
    readers: BTreeMap<ReaderId, Demand>,
    queue: VecDeque<ReaderId>,
    came: u64,
}

impl Demands {
    pub(super) fn add(&mut self, range: Range<u64>) -> ReaderId {
        let id = ReaderId(self.came);
        self.came += 1;
        self.readers.insert(
            id,
            Demand {
                rest: range,
                queued: false,
            },
        );
        self.enqueue(id);
        id
    }

    pub(super) fn remove(&mut self, id: ReaderId) {
        self.readers.remove(&id);
    }

    /// Notes how far a reader has come. What it still wants.
    pub(super) fn moved(&mut self, id: ReaderId, position: u64) -> Option<Range<u64>> {
        let demand = self.readers.get_mut(&id)?;
        demand.rest.start = position;
        Some(demand.rest.clone())
    }

    /// Lines a reader up, unless it is in the queue. Returns whether it was not.
    pub(super) fn enqueue(&mut self, id: ReaderId) -> bool {
        match self.readers.get_mut(&id) {
            Some(demand) if !demand.queued => {
                demand.queued = true;
                self.queue.push_back(id);
                true
            }
            _ => false,
        }
    }

    /// Lines all readers up: what was on the way for some may not be any more.
    pub(super) fn enqueue_all(&mut self) {
        for (id, demand) in &mut self.readers {
            if !demand.queued {
                demand.queued = true;
                self.queue.push_back(*id);
            }
        }
    }

    /// The reader whose turn it is, and what it still wants. It is no longer in the queue.
    pub(super) fn pop(&mut self) -> Option<(ReaderId, Range<u64>)> {
        while let Some(id) = self.queue.pop_front() {
            if let Some(demand) = self.readers.get_mut(&id) {
                demand.queued = false;
                return Some((id, demand.rest.clone()));
            }
        }
        None
    }
}

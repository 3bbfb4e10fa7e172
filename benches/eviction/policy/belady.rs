//! What is asked for again last goes first (Belady 1966): sees the future, so nothing can be had that is much better.
//! (With sizes the best would be a knapsack; this is near it.)

use std::collections::{BTreeSet, HashMap};

use super::{Policy, Stored};
use crate::images::Object;
use crate::trace::Trace;

#[derive(Debug)]
pub(crate) struct Belady {
    /// By number of a request: the number of the next for the same object.
    next: Vec<u32>,
    order: BTreeSet<(u32, Object)>,
    stored: HashMap<Object, u32>,
    now: u32,
}

impl Belady {
    pub(crate) fn new(trace: &Trace) -> Self {
        let mut next = vec![u32::MAX; trace.requests.len()];
        let mut seen: HashMap<Object, u32> = HashMap::new();
        for (number, request) in (0_u32..)
            .zip(&trace.requests)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            if let Some(later) = seen.insert(request.object, number) {
                next[number as usize] = later;
            }
        }
        Self {
            next,
            order: BTreeSet::new(),
            stored: HashMap::new(),
            now: 0,
        }
    }
}

impl Policy for Belady {
    fn asked(&mut self, _: Object, number: u32) {
        self.now = number;
    }

    fn hit(&mut self, object: Object, at: u32) {
        self.insert(object, 0, at);
    }

    fn insert(&mut self, object: Object, _: u64, _: u32) {
        let next = self.next[self.now as usize];
        if let Some(before) = self.stored.insert(object, next) {
            self.order.remove(&(before, object));
        }
        self.order.insert((next, object));
    }

    fn evict(&mut self) -> Option<Object> {
        let (_, object) = self.order.pop_last()?;
        self.stored.remove(&object);
        Some(object)
    }

    fn restart(&mut self, _: &[Stored]) {}
}

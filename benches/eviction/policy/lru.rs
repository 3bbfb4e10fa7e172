//! Least recently used goes first. All it needs is on disk.

use std::collections::{BTreeMap, HashMap};

use super::{Policy, Stored};
use crate::images::Object;

/// An order by last use; also a part of other policies.
#[derive(Debug, Default)]
pub(crate) struct Lru {
    next: u64,
    order: BTreeMap<u64, Object>,
    place: HashMap<Object, u64>,
}

impl Lru {
    pub(crate) fn touch(&mut self, object: Object) {
        self.remove(object);
        self.order.insert(self.next, object);
        self.place.insert(object, self.next);
        self.next += 1;
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, object: Object) -> bool {
        let place = self.place.remove(&object);
        place.is_some_and(|place| self.order.remove(&place).is_some())
    }

    pub(crate) fn pop(&mut self) -> Option<Object> {
        let (_, object) = self.order.pop_first()?;
        self.place.remove(&object);
        Some(object)
    }
}

impl Policy for Lru {
    fn hit(&mut self, object: Object, _: u32) {
        self.touch(object);
    }

    fn insert(&mut self, object: Object, _: u64, _: u32) {
        self.touch(object);
    }

    fn evict(&mut self) -> Option<Object> {
        self.pop()
    }

    fn restart(&mut self, left: &[Stored]) {
        *self = Self::default();
        for stored in left {
            self.touch(stored.object);
        }
    }
}

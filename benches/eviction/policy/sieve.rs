//! SIEVE (Zhang et al., NSDI 2024): first in, first out, but a hand passes over what was used since it last came by.
//!
//! After a restart: in the order of last use, none of it used since.

use std::collections::{BTreeMap, HashMap};

use super::{Policy, Stored};
use crate::images::Object;

#[derive(Debug, Default)]
pub(crate) struct Sieve {
    next: u64,
    /// From the oldest.
    queue: BTreeMap<u64, Object>,
    used: HashMap<Object, bool>,
    hand: u64,
}

impl Policy for Sieve {
    fn hit(&mut self, object: Object, _: u32) {
        self.used.insert(object, true);
    }

    fn insert(&mut self, object: Object, _: u64, _: u32) {
        self.queue.insert(self.next, object);
        self.used.insert(object, false);
        self.next += 1;
    }

    fn evict(&mut self) -> Option<Object> {
        loop {
            let ahead = self.queue.range(self.hand..).next();
            let (&place, &object) = ahead.or_else(|| self.queue.first_key_value())?;
            self.hand = place + 1;
            if self.used.insert(object, false) == Some(false) {
                self.queue.remove(&place);
                self.used.remove(&object);
                return Some(object);
            }
        }
    }

    fn restart(&mut self, left: &[Stored]) {
        *self = Self::default();
        for stored in left {
            self.insert(stored.object, stored.size, stored.used);
        }
    }
}

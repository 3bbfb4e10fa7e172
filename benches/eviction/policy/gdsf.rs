//! Greedy-Dual by frequency and size (Cherkasova 1998): what is small, often used, or used lately stays. With the cost
//! of an object its size, size falls out of it, and it is LFU with dynamic ageing (Arlitt et al. 1999), which goes for
//! bytes instead of requests.
//!
//! After a restart: each used once, the later the more it is worth, up to what one use is worth.

#![expect(clippy::cast_precision_loss, reason = "a worth is not exact")]

use std::collections::{BTreeSet, HashMap};

use super::{Policy, Stored};
use crate::images::Object;

#[derive(Debug)]
pub(crate) struct Gdsf {
    /// By worth, whose bits sort like it since it is never negative.
    order: BTreeSet<(u64, Object)>,
    known: HashMap<Object, Known>,
    /// The worth of what went last.
    age: f64,
    per_byte: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    size: u64,
    uses: u32,
    worth: u64,
}

impl Gdsf {
    pub(crate) fn by_requests() -> Self {
        Self::new(true)
    }

    pub(crate) fn by_bytes() -> Self {
        Self::new(false)
    }

    fn new(per_byte: bool) -> Self {
        Self {
            order: BTreeSet::new(),
            known: HashMap::new(),
            age: 0.0,
            per_byte,
        }
    }

    fn put(&mut self, object: Object, size: u64, uses: u32) {
        let divisor = if self.per_byte {
            size.max(1) as f64
        } else {
            1.0
        };
        let worth = (self.age + f64::from(uses) / divisor).to_bits();
        let known = Known { size, uses, worth };
        if let Some(before) = self.known.insert(object, known) {
            self.order.remove(&(before.worth, object));
        }
        self.order.insert((worth, object));
    }
}

impl Policy for Gdsf {
    fn hit(&mut self, object: Object, _: u32) {
        let Known { size, uses, .. } = self.known[&object];
        self.put(object, size, uses + 1);
    }

    fn insert(&mut self, object: Object, size: u64, _: u32) {
        self.put(object, size, 1);
    }

    fn evict(&mut self) -> Option<Object> {
        let (worth, object) = self.order.pop_first()?;
        self.age = f64::from_bits(worth);
        self.known.remove(&object);
        Some(object)
    }

    fn restart(&mut self, left: &[Stored]) {
        *self = Self::new(self.per_byte);
        let bytes: u64 = left.iter().map(|stored| stored.size).sum();
        let mean = if self.per_byte {
            bytes as f64 / left.len().max(1) as f64
        } else {
            1.0
        };
        for (stored, rank) in left.iter().zip(0_u32..) {
            self.age = f64::from(rank) / left.len() as f64 / mean;
            self.put(stored.object, stored.size, 1);
        }
        self.age = 0.0;
    }
}

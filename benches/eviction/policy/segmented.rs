//! Least recently used, in two segments (segmented LRU; Karedla et al. 1994): newcomers, and what was used again. While
//! newcomers hold more than a quarter of the cache, one of them goes; else one of the others.
//!
//! Requests within a minute are one use: a client asks for the length and then for the content, or for parts.
//!
//! After a restart: all of it counts as used again.

use std::collections::HashMap;

use super::lru::Lru;
use super::{Policy, Stored};
use crate::images::Object;

#[derive(Debug)]
pub(crate) struct Segmented {
    newcomers: Lru,
    others: Lru,
    known: HashMap<Object, Known>,
    newcomer_bytes: u64,
    share: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    size: u64,
    since: u32,
    is_newcomer: bool,
}

/// Requests within so many seconds of the first are one use.
const ONE_USE: u32 = 60;

impl Segmented {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            newcomers: Lru::default(),
            others: Lru::default(),
            known: HashMap::new(),
            newcomer_bytes: 0,
            share: capacity / 4,
        }
    }
}

impl Policy for Segmented {
    fn hit(&mut self, object: Object, at: u32) {
        let known = self.known.get_mut(&object).expect("it is stored");
        if known.is_newcomer && at - known.since < ONE_USE {
            self.newcomers.touch(object);
            return;
        }
        if known.is_newcomer {
            known.is_newcomer = false;
            self.newcomer_bytes -= known.size;
            self.newcomers.remove(object);
        }
        self.others.touch(object);
    }

    fn insert(&mut self, object: Object, size: u64, at: u32) {
        let known = Known {
            size,
            since: at,
            is_newcomer: true,
        };
        self.known.insert(object, known);
        self.newcomer_bytes += size;
        self.newcomers.touch(object);
    }

    fn evict(&mut self) -> Option<Object> {
        let object = if self.newcomer_bytes > self.share {
            self.newcomers.pop()
        } else {
            self.others.pop().or_else(|| self.newcomers.pop())
        }?;
        let known = self.known.remove(&object)?;
        if known.is_newcomer {
            self.newcomer_bytes -= known.size;
        }
        Some(object)
    }

    fn restart(&mut self, left: &[Stored]) {
        *self = Self {
            share: self.share,
            ..Self::new(0)
        };
        for stored in left {
            let known = Known {
                size: stored.size,
                since: stored.used,
                is_newcomer: false,
            };
            self.known.insert(stored.object, known);
            self.others.touch(stored.object);
        }
    }
}

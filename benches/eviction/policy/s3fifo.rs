//! S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one for what was used twice, and a memory of
//! what left the small one, which comes back into the main one. Counted in bytes, since sizes differ by millions.
//!
//! After a restart: all of it in the main queue, in the order of last use, none of it used since; the memory is lost.

use std::collections::{HashMap, VecDeque};

use super::{Policy, Stored};
use crate::images::Object;

#[derive(Debug)]
pub(crate) struct S3Fifo {
    small: Queue,
    main: Queue,
    /// What left the small queue: as many bytes as the main one holds.
    ghosts: Queue,
    known: HashMap<Object, Known>,
    small_share: u64,
    ghost_share: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    size: u64,
    uses: u8,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
    Ghost,
}

#[derive(Debug, Default)]
struct Queue {
    objects: VecDeque<Object>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, object: Object, size: u64) {
        self.objects.push_back(object);
        self.bytes += size;
    }
}

impl S3Fifo {
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Queue::default(),
            known: HashMap::new(),
            small_share: capacity / 10,
            ghost_share: capacity - capacity / 10,
        }
    }

    fn place(&mut self, object: Object, size: u64, place: Place) {
        let known = Known {
            size,
            uses: 0,
            place,
        };
        self.known.insert(object, known);
        match place {
            Place::Small => self.small.push(object, size),
            Place::Main => self.main.push(object, size),
            Place::Ghost => self.ghosts.push(object, size),
        }
    }

    /// From the small queue: what was used twice moves on, the first that was not goes.
    fn evict_small(&mut self) -> Option<Object> {
        while let Some(object) = self.small.objects.pop_front() {
            let Known { size, uses, .. } = self.known[&object];
            self.small.bytes -= size;
            if uses > 1 {
                self.place(object, size, Place::Main);
                continue;
            }
            self.place(object, size, Place::Ghost);
            self.forget();
            return Some(object);
        }
        None
    }

    fn evict_main(&mut self) -> Option<Object> {
        while let Some(object) = self.main.objects.pop_front() {
            let known = self.known.get_mut(&object)?;
            if known.uses > 0 {
                known.uses -= 1;
                self.main.objects.push_back(object);
                continue;
            }
            self.main.bytes -= known.size;
            self.known.remove(&object);
            return Some(object);
        }
        None
    }

    /// Keeps the memory within its bounds. What has come back meanwhile is not in it any more.
    fn forget(&mut self) {
        while self.ghosts.bytes > self.ghost_share
            && let Some(object) = self.ghosts.objects.pop_front()
        {
            if let Some(known) = self.known.get(&object)
                && known.place == Place::Ghost
            {
                self.ghosts.bytes -= known.size;
                self.known.remove(&object);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn hit(&mut self, object: Object, _: u32) {
        if let Some(known) = self.known.get_mut(&object) {
            known.uses = (known.uses + 1).min(3);
        }
    }

    fn insert(&mut self, object: Object, size: u64, _: u32) {
        if self.known.contains_key(&object) {
            self.ghosts.bytes -= size;
            self.ghosts.objects.retain(|ghost| *ghost != object);
            self.place(object, size, Place::Main);
        } else {
            self.place(object, size, Place::Small);
        }
    }

    fn evict(&mut self) -> Option<Object> {
        if self.small.bytes > self.small_share {
            self.evict_small().or_else(|| self.evict_main())
        } else {
            self.evict_main().or_else(|| self.evict_small())
        }
    }

    fn restart(&mut self, left: &[Stored]) {
        *self = Self::new(self.small_share + self.ghost_share);
        for stored in left {
            self.place(stored.object, stored.size, Place::Main);
        }
    }
}

//! First in, first out: what any policy has to beat.

use std::collections::VecDeque;

use super::{Policy, Stored};
use crate::images::Object;

#[derive(Debug, Default)]
pub(crate) struct Fifo(VecDeque<Object>);

impl Policy for Fifo {
    fn hit(&mut self, _: Object, _: u32) {}

    fn insert(&mut self, object: Object, _: u64, _: u32) {
        self.0.push_back(object);
    }

    fn evict(&mut self) -> Option<Object> {
        self.0.pop_front()
    }

    fn restart(&mut self, left: &[Stored]) {
        self.0 = left.iter().map(|stored| stored.object).collect();
    }
}

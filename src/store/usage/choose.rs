//! Who goes: segmented LRU over the blobs, and the manifests after them (see `docs/eviction.md`).
//!
//! Those that may not go are put aside when they are met, so that each is met once: the pinned until the pins change,
//! the others for a minute. So a victim costs the same among twenty thousand as among a million.

use super::index::{Index, SEGMENTS};
use super::key::{Key, short};
use super::nodes::{Id, ListName, Seconds, Segment};
use super::reading::Readers;

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Demand {
    /// So many bytes at least, from those that are worth least.
    Bytes(u64),
    /// What was last used before then.
    UnusedSince(Seconds),
}

/// A blob that is about to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Victim {
    pub(super) key: Key,
    pub(in crate::store) len: u64,
}

impl Index {
    /// Chooses up to `most` blobs. They are in nobody's way until they are removed, used or put back.
    pub(super) fn choose(
        &mut self,
        demand: Demand,
        most: usize,
        now: Seconds,
        readers: &Readers,
    ) -> Vec<Victim> {
        if now >= self.looked_again.saturating_add(LOOK_AGAIN) {
            self.look_again(now);
        }
        let mut choice = Choice {
            index: self,
            readers,
            now,
            has_looked_again: false,
        };
        let mut victims = Vec::new();
        let mut bytes = 0_u64;
        while victims.len() < most {
            let next = match demand {
                Demand::Bytes(wanted) if bytes >= wanted => break,
                Demand::Bytes(_) => choice.worth_least(),
                Demand::UnusedSince(then) => choice.unused_since(then),
            };
            let Some(id) = next else { break };
            let index = &mut *choice.index;
            index.nodes.move_to_front(id, ListName::Chosen);
            let len = index.nodes.get(id).len;
            bytes = bytes.saturating_add(len);
            let key = index.key_of(id);
            victims.push(Victim { key, len });
        }
        victims
    }

    /// Whether a chosen blob is still to go: it was not used since, nor pinned.
    pub(super) fn is_chosen(&self, victim: &Victim, readers: &Readers) -> bool {
        let id = self.find(&victim.key);
        id.is_some_and(|id| {
            self.nodes.list_of(id) == Some(ListName::Chosen)
                && !self.is_pinned(id)
                && !readers.has(&victim.key.start)
        })
    }

    /// Puts chosen blobs that stay back to where they were; `victims` in the order that they were chosen in.
    pub(super) fn put_back(&mut self, victims: &[Victim], now: Seconds, readers: &Readers) {
        for victim in victims.iter().rev() {
            if let Some(id) = self.find(&victim.key)
                && self.nodes.list_of(id) == Some(ListName::Chosen)
            {
                let segment = self.nodes.get(id).segment;
                match self.aside(id, now, readers) {
                    // Pinned since, and perhaps used later than others that are.
                    Some(list @ ListName::Pinned(_)) => self.nodes.sort_in(id, list),
                    aside => self
                        .nodes
                        .move_to_back(id, aside.unwrap_or(ListName::In(segment))),
                }
            }
        }
    }

    /// Puts back a chosen blob that cannot be removed, so that others are tried before it.
    pub(super) fn put_last(&mut self, victim: &Victim) {
        if let Some(id) = self.find(&victim.key) {
            let segment = self.nodes.get(id).segment;
            self.nodes.move_to_front(id, ListName::In(segment));
        }
    }

    /// Where a blob that may not go now waits.
    fn aside(&self, id: Id, now: Seconds, readers: &Readers) -> Option<ListName> {
        let node = self.nodes.get(id);
        let is_spared = || {
            let until = self.spared.get(&short(&node.start));
            until.is_some_and(|&until| until > now)
        };
        if self.is_pinned(id) {
            Some(ListName::Pinned(node.segment))
        } else if readers.has(&node.start) || is_spared() {
            Some(ListName::Spared(node.segment))
        } else {
            None
        }
    }

    fn is_pinned(&self, id: Id) -> bool {
        self.pinned.contains(short(&self.nodes.get(id).start))
    }

    /// Takes those that were put aside for a while back among the rest.
    fn look_again(&mut self, now: Seconds) {
        self.looked_again = now;
        self.spared.retain(|_, until| *until > now);
        for segment in SEGMENTS {
            self.nodes
                .merge(ListName::Spared(segment), ListName::In(segment));
        }
    }
}

/// A choice under way.
struct Choice<'a> {
    index: &'a mut Index,
    readers: &'a Readers,
    now: Seconds,
    has_looked_again: bool,
}

impl Choice<'_> {
    fn worth_least(&mut self) -> Option<Id> {
        if let Some(id) = self.blob() {
            return Some(id);
        }
        if !self.has_looked_again {
            // What is left may be spared no longer.
            self.has_looked_again = true;
            self.index.look_again(self.now);
            if let Some(id) = self.blob() {
                return Some(id);
            }
        }
        self.spared(Segment::Newcomers)
            .or_else(|| self.spared(Segment::Others))
            .or_else(|| self.oldest_of(Segment::Manifests, Seconds::MAX))
            .or_else(|| self.spared(Segment::Manifests))
    }

    /// A newcomer while those are more than a quarter of what may go, else one of the others.
    fn blob(&mut self) -> Option<Id> {
        loop {
            let [newcomers, others] = [Segment::Newcomers, Segment::Others]
                .map(|segment| self.index.nodes.list(ListName::In(segment)).bytes);
            let quarter = newcomers.saturating_add(others) / 4;
            let order = if newcomers > quarter {
                [Segment::Newcomers, Segment::Others]
            } else {
                [Segment::Others, Segment::Newcomers]
            };
            let oldest = |segment| self.index.nodes.oldest(ListName::In(segment));
            let id = order.into_iter().find_map(oldest)?;
            if !self.put_aside(id) {
                return Some(id);
            }
        }
    }

    fn unused_since(&mut self, then: Seconds) -> Option<Id> {
        SEGMENTS
            .into_iter()
            .find_map(|segment| self.oldest_of(segment, then))
    }

    /// What was used longest ago of a segment, if that was before `then`.
    fn oldest_of(&mut self, segment: Segment, then: Seconds) -> Option<Id> {
        loop {
            let id = self.index.nodes.oldest(ListName::In(segment))?;
            if self.index.nodes.get(id).used >= then {
                return None;
            }
            if !self.put_aside(id) {
                return Some(id);
            }
        }
    }

    /// One that is only spared, not read or pinned.
    fn spared(&mut self, segment: Segment) -> Option<Id> {
        let mut next = self.index.nodes.oldest(ListName::Spared(segment));
        while let Some(id) = next {
            next = self.index.nodes.newer(id);
            if self.index.is_pinned(id) {
                self.index
                    .nodes
                    .move_to_front(id, ListName::Pinned(segment));
            } else if !self.readers.has(&self.index.nodes.get(id).start) {
                return Some(id);
            }
        }
        None
    }

    /// Puts aside what may not go now; whether it did.
    fn put_aside(&mut self, id: Id) -> bool {
        let aside = self.index.aside(id, self.now, self.readers);
        if let Some(list) = aside {
            self.index.nodes.move_to_front(id, list);
        }
        aside.is_some()
    }
}

/// After so many seconds, those that were put aside for a while are looked at again.
const LOOK_AGAIN: Seconds = 60;

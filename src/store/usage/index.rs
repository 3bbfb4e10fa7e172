//! The index itself, without a lock or a clock: which blobs there are, how long, and when each was used.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::oci::{DigestMap, DigestSet};

use super::key::{Key, short};
use super::nodes::{Id, ListName, Node, Nodes, Seconds, Segment};

/// All blobs. What of it decides who goes is in `choose.rs`.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) nodes: Nodes,
    /// Finds a blob by its digest, which is kept in its node alone.
    table: HashTable<Id>,
    hasher: RandomState,
    /// The second halves of SHA-512 digests, of which there are few.
    wide: HashMap<Id, [u8; 32]>,
    bytes: u64,
    /// What pinned images lead to.
    pub(super) pinned: DigestSet,
    /// Until when a blob goes only when nothing else is left.
    pub(super) spared: DigestMap<Seconds>,
    /// When those were last looked for that are spared no longer.
    swept: Seconds,
    /// When those that were passed over for that were last looked at again.
    pub(super) looked_again: Seconds,
    /// Blobs whose last use waits to be written.
    unwritten: Vec<Id>,
    /// Whether all blobs are in here that were to be.
    pub(super) is_all: bool,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            nodes: Nodes::new(),
            table: HashTable::new(),
            hasher: RandomState::new(),
            wide: HashMap::new(),
            bytes: 0,
            pinned: DigestSet::default(),
            spared: DigestMap::default(),
            swept: 0,
            looked_again: 0,
            unwritten: Vec::new(),
            is_all: true,
        }
    }

    /// How many bytes all blobs have.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many blobs there are.
    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    pub(super) fn find(&self, key: &Key) -> Option<Id> {
        let hash = self.hasher.hash_one(key.start);
        let is_it = |id: &Id| self.is(*id, key);
        self.table.find(hash, is_it).copied()
    }

    fn is(&self, id: Id, key: &Key) -> bool {
        let node = self.nodes.get(id);
        node.start == key.start
            && match &key.rest {
                None => !node.is_wide,
                Some(rest) => node.is_wide && self.wide.get(&id) == Some(&**rest),
            }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Node> {
        self.find(key).map(|id| self.nodes.get(id))
    }

    /// The digest of a blob.
    pub(super) fn key_of(&self, id: Id) -> Key {
        Key {
            start: self.nodes.get(id).start,
            rest: self.wide.get(&id).map(|rest| Box::new(*rest)),
        }
    }

    /// Puts a blob in that is not there yet, in no list.
    fn insert(&mut self, key: &Key, len: u64) -> Option<Id> {
        let Some(id) = self.nodes.insert(key.start, key.rest.is_some()) else {
            self.is_all = false;
            return None;
        };
        self.nodes.set_len(id, len);
        if let Some(rest) = &key.rest {
            self.wide.insert(id, **rest);
        }
        let Self {
            table,
            hasher,
            nodes,
            ..
        } = self;
        let hash = |id: &Id| hasher.hash_one(nodes.get(*id).start);
        table.insert_unique(hash(&id), id, hash);
        self.bytes = self.bytes.saturating_add(len);
        Some(id)
    }

    /// Notes a committed blob: a newcomer, or one that is there again.
    pub(super) fn add(&mut self, key: &Key, len: u64, now: Seconds) {
        let id = match self.find(key) {
            Some(id) => {
                let before = self.nodes.get(id).len;
                self.bytes = self.bytes.saturating_sub(before).saturating_add(len);
                self.nodes.set_len(id, len);
                id
            }
            None => match self.insert(key, len) {
                Some(id) => id,
                None => return,
            },
        };
        let node = self.nodes.get_mut(id);
        (node.used, node.written, node.is_unwritten) = (now, now, false);
        self.nodes.move_to_front(id, ListName::In(self.segment(id)));
    }

    /// Notes a blob that the scan found, last used at `used`, unless it is known.
    pub(super) fn add_found(&mut self, key: &Key, len: u64, used: Seconds, segment: Segment) {
        if self.find(key).is_some() {
            return;
        }
        let Some(id) = self.insert(key, len) else {
            return;
        };
        let node = self.nodes.get_mut(id);
        (node.used, node.written, node.segment) = (used, used, segment);
        self.nodes.move_to_front(id, ListName::Found);
    }

    /// What the scan found and nobody has used since, with the last uses, in no order.
    pub(super) fn found(&self) -> Vec<(Seconds, Id)> {
        self.nodes.all_of(ListName::Found)
    }

    /// Puts found blobs in their places; `sorted` are some of [`Index::found`], the last used first, all that come
    /// before them having been put in place.
    pub(super) fn place_found(&mut self, sorted: &[(Seconds, Id)]) {
        for &(_, id) in sorted {
            // It may have been used or removed meanwhile.
            if self.nodes.list_of(id) == Some(ListName::Found) {
                self.nodes.move_to_back(id, ListName::In(self.segment(id)));
            }
        }
    }

    /// Removes a blob; its length.
    pub(super) fn remove(&mut self, key: &Key) -> Option<u64> {
        let id = self.find(key)?;
        let hash = self.hasher.hash_one(key.start);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.wide.remove(&id);
        let len = self.nodes.get(id).len;
        self.nodes.remove(id);
        self.bytes = self.bytes.saturating_sub(len);
        Some(len)
    }

    /// Notes a use. Who is used again after a while is no newcomer any more.
    pub(super) fn touch(&mut self, key: &Key, now: Seconds) {
        let Some(id) = self.find(key) else { return };
        let node = self.nodes.get_mut(id);
        node.used = node.used.max(now);
        // A newcomer's is from when it came.
        let is_another_use = now.saturating_sub(node.written) >= ONE_USE;
        if is_another_use && node.segment == Segment::Newcomers {
            node.segment = Segment::Others;
        }
        if is_another_use && !node.is_unwritten && self.unwritten.len() < MOST_UNWRITTEN {
            node.is_unwritten = true;
            self.unwritten.push(id);
        }
        self.nodes.move_to_front(id, ListName::In(self.segment(id)));
    }

    /// Takes the last uses that are to be written to disk.
    pub(super) fn take_unwritten(&mut self) -> Vec<(Key, Seconds)> {
        let mut taken = Vec::new();
        for id in std::mem::take(&mut self.unwritten) {
            let node = self.nodes.get_mut(id);
            // Removed meanwhile, and perhaps another took its number.
            if !std::mem::take(&mut node.is_unwritten) {
                continue;
            }
            node.written = node.used;
            let used = node.used;
            taken.push((self.key_of(id), used));
        }
        taken
    }

    /// Notes that a blob is a manifest.
    pub(super) fn mark_manifest(&mut self, key: &Key) {
        let Some(id) = self.find(key) else { return };
        let node = self.nodes.get_mut(id);
        if node.segment == Segment::Manifests {
            return;
        }
        node.segment = Segment::Manifests;
        if self.nodes.list_of(id) != Some(ListName::Found) {
            self.nodes.sort_in(id, ListName::In(Segment::Manifests));
        }
    }

    /// Replaces what is pinned.
    pub(super) fn set_pinned(&mut self, pinned: DigestSet) {
        self.pinned = pinned;
        for segment in SEGMENTS {
            self.nodes
                .merge(ListName::Pinned(segment), ListName::In(segment));
        }
    }

    /// Forgets those that are spared no longer, where there is no place for more; once a second at most, since it looks at
    /// all of them.
    pub(super) fn sweep_spared(&mut self, now: Seconds) {
        if self.spared.len() >= MOST_SPARED && now != self.swept {
            self.swept = now;
            self.spared.retain(|_, until| *until > now);
        }
    }

    /// Spares a blob, here or to come, until then. Whether it was possible.
    pub(super) fn spare(&mut self, key: &Key, until: Seconds) -> bool {
        let short = short(&key.start);
        if self.spared.len() >= MOST_SPARED && !self.spared.contains_key(&short) {
            return false;
        }
        let kept = self.spared.entry(short).or_default();
        *kept = until.max(*kept);
        true
    }

    fn segment(&self, id: Id) -> Segment {
        self.nodes.get(id).segment
    }
}

pub(super) const SEGMENTS: [Segment; 3] = [Segment::Newcomers, Segment::Others, Segment::Manifests];

/// Requests within so many seconds of the first are one use: a client asks for the length and then for the content, or
/// for parts. A last use is written no more often either.
const ONE_USE: Seconds = 60;

/// Last uses that wait to be written; beyond, they are kept in memory only.
pub(super) const MOST_UNWRITTEN: usize = 16 * 1024;

/// Blobs that are spared at once: those of some twenty thousand images.
pub(super) const MOST_SPARED: usize = 256 * 1024;

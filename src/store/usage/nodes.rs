//! The blobs of the index, in lists by their last use. Lists link numbers instead of pointers, and a list's order is
//! never more than its links: to use a blob is to move it to the front.

/// A blob's number, until it is removed.
pub(super) type Id = u32;

/// Since the epoch; good until 2106.
pub(super) type Seconds = u32;

/// No blob.
pub(super) const NIL: Id = Id::MAX;

/// What is known of a blob, in 64 bytes.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// All of a SHA-256 digest, the first half of a SHA-512 one.
    pub(super) start: [u8; 32],
    pub(super) len: u64,
    pub(super) used: Seconds,
    /// The last use that the file's mtime tells: of a newcomer, when it came.
    pub(super) written: Seconds,
    /// Its neighbour that was used later.
    newer: Id,
    /// Its neighbour that was used earlier; of a free place, the next one.
    older: Id,
    list: Option<ListName>,
    pub(super) segment: Segment,
    /// Its last use waits to be written.
    pub(super) is_unwritten: bool,
    /// The second half of its digest is kept elsewhere.
    pub(super) is_wide: bool,
}

/// How a blob came to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment {
    /// Used once.
    Newcomers,
    /// Used again.
    Others,
    /// A manifest, which goes last.
    Manifests,
}

/// Where a blob is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListName {
    /// Among those that may go.
    In(Segment),
    /// Passed over, since it is pinned.
    Pinned(Segment),
    /// Passed over, since an image that leads to it was just asked for, or since somebody reads it.
    Spared(Segment),
    /// Found by the scan, in no order yet.
    Found,
    /// About to go.
    Chosen,
}

/// Blobs in the order of their last use.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    newest: Id,
    oldest: Id,
    /// Of all of them.
    pub(super) bytes: u64,
}

/// All blobs.
#[derive(Debug)]
pub(super) struct Nodes {
    /// In chunks, so that growing copies nothing and wastes little.
    chunks: Vec<Vec<Node>>,
    free: Id,
    lists: [List; LISTS],
}

const LISTS: usize = 11;

const CHUNK: usize = 4096;

impl ListName {
    fn number(self) -> usize {
        match self {
            Self::In(segment) => segment as usize,
            Self::Pinned(segment) => 3 + segment as usize,
            Self::Spared(segment) => 6 + segment as usize,
            Self::Found => 9,
            Self::Chosen => 10,
        }
    }
}

impl Nodes {
    pub(super) fn new() -> Self {
        let list = List {
            newest: NIL,
            oldest: NIL,
            bytes: 0,
        };
        Self {
            chunks: Vec::new(),
            free: NIL,
            lists: [list; LISTS],
        }
    }

    pub(super) fn get(&self, id: Id) -> &Node {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    /// A place for a blob, in no list; `None` where four thousand million are taken.
    pub(super) fn insert(&mut self, start: [u8; 32], is_wide: bool) -> Option<Id> {
        let node = Node {
            start,
            len: 0,
            used: 0,
            written: 0,
            newer: NIL,
            older: NIL,
            list: None,
            segment: Segment::Newcomers,
            is_unwritten: false,
            is_wide,
        };
        if self.free != NIL {
            let id = self.free;
            self.free = self.get(id).older;
            *self.get_mut(id) = node;
            return Some(id);
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let last = self.chunks.last_mut()?;
        let id = Id::try_from(full + last.len()).ok();
        let id = id.filter(|&id| id != NIL)?;
        last.push(node);
        Some(id)
    }

    /// Gives a blob's place up.
    pub(super) fn remove(&mut self, id: Id) {
        self.unlink(id);
        let free = self.free;
        let node = self.get_mut(id);
        node.is_unwritten = false;
        node.older = free;
        self.free = id;
    }

    /// The list that the blob is in; `None` for a place that is free.
    pub(super) fn list_of(&self, id: Id) -> Option<ListName> {
        self.get(id).list
    }

    pub(super) fn list(&self, name: ListName) -> List {
        self.lists[name.number()]
    }

    /// The blob of the list that was used longest ago.
    pub(super) fn oldest(&self, name: ListName) -> Option<Id> {
        some(self.list(name).oldest)
    }

    /// The next younger blob of its list.
    pub(super) fn newer(&self, id: Id) -> Option<Id> {
        some(self.get(id).newer)
    }

    /// Sets the length of a blob, and what its list adds up to.
    pub(super) fn set_len(&mut self, id: Id, len: u64) {
        let before = std::mem::replace(&mut self.get_mut(id).len, len);
        if let Some(name) = self.list_of(id) {
            let list = &mut self.lists[name.number()];
            list.bytes = list.bytes.saturating_sub(before).saturating_add(len);
        }
    }

    /// Moves a blob to the newest end of a list.
    pub(super) fn move_to_front(&mut self, id: Id, name: ListName) {
        self.unlink(id);
        let newest = self.list(name).newest;
        self.link(id, name, some(newest), None);
    }

    /// Moves a blob to the oldest end of a list.
    pub(super) fn move_to_back(&mut self, id: Id, name: ListName) {
        self.unlink(id);
        let oldest = self.list(name).oldest;
        self.link(id, name, None, some(oldest));
    }

    /// Moves a blob to its place in a list, looked for from the newest end.
    pub(super) fn sort_in(&mut self, id: Id, name: ListName) {
        self.unlink(id);
        let used = self.get(id).used;
        let (mut older, mut newer) = (some(self.list(name).newest), None);
        while let Some(at) = older
            && self.get(at).used > used
        {
            newer = Some(at);
            older = some(self.get(at).older);
        }
        self.link(id, name, older, newer);
    }

    /// Moves all of a list to where they belong in another, whose blobs are for the most part used later. Takes as long
    /// as those are many that are moved, or older than them.
    pub(super) fn merge(&mut self, from: ListName, into: ListName) {
        let (mut older, mut newer) = (None, self.oldest(into));
        while let Some(id) = self.oldest(from) {
            let used = self.get(id).used;
            while let Some(at) = newer
                && self.get(at).used < used
            {
                older = Some(at);
                newer = self.newer(at);
            }
            self.unlink(id);
            self.link(id, into, older, newer);
            older = Some(id);
        }
    }

    /// Every blob of a list with its last use, in no order.
    pub(super) fn all_of(&self, name: ListName) -> Vec<(Seconds, Id)> {
        let nodes = self.chunks.iter().flatten().zip(0..);
        let those = nodes.filter(|(node, _)| node.list == Some(name));
        those.map(|(node, id)| (node.used, id)).collect()
    }

    /// Puts a blob that is in no list between two neighbours.
    fn link(&mut self, id: Id, name: ListName, older: Option<Id>, newer: Option<Id>) {
        let node = self.get_mut(id);
        node.list = Some(name);
        node.older = older.unwrap_or(NIL);
        node.newer = newer.unwrap_or(NIL);
        let len = node.len;
        match older {
            Some(older) => self.get_mut(older).newer = id,
            None => self.lists[name.number()].oldest = id,
        }
        match newer {
            Some(newer) => self.get_mut(newer).older = id,
            None => self.lists[name.number()].newest = id,
        }
        let list = &mut self.lists[name.number()];
        list.bytes = list.bytes.saturating_add(len);
    }

    fn unlink(&mut self, id: Id) {
        let node = self.get_mut(id);
        let (older, newer, len) = (node.older, node.newer, node.len);
        let Some(name) = node.list.take() else { return };
        let list = &mut self.lists[name.number()];
        list.bytes = list.bytes.saturating_sub(len);
        match some(older) {
            Some(older) => self.get_mut(older).newer = newer,
            None => list.oldest = newer,
        }
        match some(newer) {
            Some(newer) => self.get_mut(newer).older = older,
            None => self.lists[name.number()].newest = older,
        }
    }
}

fn some(id: Id) -> Option<Id> {
    (id != NIL).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_takes_64_bytes() {
        assert_eq!(size_of::<Node>(), 64);
    }
}

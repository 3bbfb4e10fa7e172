//! Questions whose clients went on without an answer: one per tag, so that a disk that hangs does not gather them.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::TagKey;

/// The tags about which a late answer is waited for.
#[derive(Debug, Default)]
pub(super) struct Late(Arc<Mutex<HashSet<TagKey>>>);

/// A tag's one place among them, left when dropped.
#[derive(Debug)]
pub(super) struct Follower {
    late: Arc<Mutex<HashSet<TagKey>>>,
    key: TagKey,
}

impl Late {
    /// The place of `key`, unless it is taken.
    pub(super) fn take(&self, key: &TagKey) -> Option<Follower> {
        let is_free = self.0.lock().insert(key.clone());
        is_free.then(|| Follower {
            late: Arc::clone(&self.0),
            key: key.clone(),
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.late.lock().remove(&self.key);
    }
}

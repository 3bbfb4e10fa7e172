//! What is worth keeping: tells the store of uses that it does not see, of what images that were just asked for need, and
//! of what pinned ones lead to.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::oci::{Digest, ManifestInfo, Reference, Tag};
use crate::runtime::Clock;
use crate::store::Store;

use super::admin::Protection;
use super::recent::Recent;
use super::{ManifestAnswer, Place};

/// Speaks for what is kept.
pub(super) struct Retention {
    store: Arc<Store>,
    clock: Clock,
    protection: Arc<Protection>,
    /// Answers that need not be compared with the pins again yet.
    answered: Recent<Asked, ()>,
    /// Manifests that need not be read again yet for what they lead to.
    sent: Recent<Digest, ()>,
}

/// An image as it was asked for, and what was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    place: Place,
    tag: Option<Tag>,
    digest: Digest,
}

/// What an image needs is spared for so long after it was asked for.
const SPARED_FOR: Duration = Duration::from_mins(10);

/// A manifest is read so often at most to find out what it leads to.
const READ_AGAIN: Duration = Duration::from_mins(1);

impl Retention {
    pub(super) fn new(store: Arc<Store>, clock: Clock, protection: Arc<Protection>) -> Self {
        Self {
            store,
            clock,
            protection,
            answered: Recent::new(),
            sent: Recent::new(),
        }
    }

    /// Notes what an answer leads to, in case that it is pinned. Whoever asks where a tag points goes on with the digest,
    /// and that alone tells nothing of the tag.
    pub(super) fn answered(&self, place: &Place, reference: &Reference, answer: &ManifestAnswer) {
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let asked = Asked {
            place: place.clone(),
            tag: tag.cloned(),
            digest: answer.digest.clone(),
        };
        let now = self.now();
        if self.answered.get(&asked, now, READ_AGAIN).is_none() {
            self.answered.put(asked, now, ());
            let parts = || parts(answer);
            self.protection.note(place, tag, &answer.digest, parts);
        }
    }

    /// Notes that a manifest is sent to a client, who will ask for what it leads to. Who only looks whether it is still the
    /// same uses nothing.
    pub(super) fn sent(&self, answer: &ManifestAnswer) {
        self.store.note_use(&answer.digest);
        let now = self.now();
        if self.sent.get(&answer.digest, now, READ_AGAIN).is_none() {
            self.sent.put(answer.digest.clone(), now, ());
            let until = self.clock.now() + SPARED_FOR + READ_AGAIN;
            self.store.spare(&parts(answer), until);
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// A manifest and what it leads to. What cannot be read leads nowhere.
fn parts(answer: &ManifestAnswer) -> Vec<Digest> {
    let mut parts = vec![answer.digest.clone()];
    if let Ok(info) = ManifestInfo::parse(Some(&answer.media_type), &answer.bytes) {
        let children = info.manifests().iter().chain(info.blobs());
        parts.extend(children.map(|part| part.digest.clone()));
    }
    parts
}

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
    /// Answers whose manifests need not be read again yet.
    read: Recent<Asked, ()>,
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
            read: Recent::new(),
        }
    }

    /// Notes that a manifest goes to a client, who will ask for what it leads to.
    pub(super) fn answered(&self, place: &Place, reference: &Reference, answer: &ManifestAnswer) {
        self.store.note_use(&answer.digest);
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let asked = Asked {
            place: place.clone(),
            tag: tag.cloned(),
            digest: answer.digest.clone(),
        };
        let time = self.clock.now();
        let now = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
        if self.read.get(&asked, now, READ_AGAIN).is_some() {
            return;
        }
        self.read.put(asked, now, ());
        let mut parts = vec![answer.digest.clone()];
        // What cannot be read leads nowhere.
        if let Ok(info) = ManifestInfo::parse(Some(&answer.media_type), &answer.bytes) {
            let children = info.manifests().iter().chain(info.blobs());
            parts.extend(children.map(|part| part.digest.clone()));
        }
        self.store.spare(&parts, time + SPARED_FOR + READ_AGAIN);
        self.protection.note(place, tag, &answer.digest, &parts);
    }
}

//! Blobs of a run: each is brought once, however many images need it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::oci::Digest;
use crate::proxy::Place;
use crate::proxy::blobs::Brought;

use super::model::WarmProblem;

/// A blob, or a manifest, that some image of the run needs.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) digest: Digest,
    /// Its bytes, as the manifest says.
    pub(super) size: u64,
    /// Whether it may be lacking: clients do not ask the registry for it.
    pub(super) is_optional: bool,
    /// Bytes that are here.
    landed: AtomicU64,
    /// Held by whoever brings this content, for whatever repository: the others would only wait for the same fetch.
    pub(super) lane: Arc<tokio::sync::Mutex<()>>,
    /// What came of it.
    pub(super) fate: OnceCell<Result<Brought, WarmProblem>>,
}

/// All parts of a run, and their sums.
#[derive(Debug, Default)]
pub(super) struct Parts {
    all: Mutex<HashMap<(Place, Digest), Arc<Part>>>,
    /// Each content counts once, whatever repositories have it.
    counted: Mutex<HashMap<Digest, Counted>>,
}

#[derive(Debug, Default)]
struct Counted {
    lane: Arc<tokio::sync::Mutex<()>>,
    size: u64,
    landed: u64,
    /// Whether nothing of it had to be fetched.
    was_here: bool,
}

/// Bytes of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) bytes: u64,
    pub(super) landed: u64,
    pub(super) fetched: u64,
}

impl Part {
    /// Bytes that are here.
    pub(super) fn landed(&self) -> u64 {
        self.landed.load(Ordering::Relaxed).min(self.size)
    }
}

impl Parts {
    /// The part, made where it is new.
    pub(super) fn get(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
        is_optional: bool,
    ) -> Arc<Part> {
        let mut all = self.all.lock();
        let vacant = match all.entry((place.clone(), digest.clone())) {
            Entry::Occupied(known) => return Arc::clone(known.get()),
            Entry::Vacant(vacant) => vacant,
        };
        let mut counted = self.counted.lock();
        let counted = counted.entry(digest.clone()).or_default();
        if !is_optional {
            counted.size = counted.size.max(size);
        }
        let part = Part {
            place: place.clone(),
            digest: digest.clone(),
            size,
            is_optional,
            landed: AtomicU64::new(0),
            lane: Arc::clone(&counted.lane),
            fate: OnceCell::new(),
        };
        Arc::clone(vacant.insert(Arc::new(part)))
    }

    /// So many bytes of a part that is being fetched are here.
    pub(super) fn landed(&self, part: &Part, landed: u64) {
        part.landed.store(landed, Ordering::Relaxed);
        let mut counted = self.counted.lock();
        if let Some(counted) = counted.get_mut(&part.digest) {
            counted.landed = counted.landed.max(landed.min(counted.size));
        }
    }

    /// A part is here, and this is what it took.
    pub(super) fn brought(&self, part: &Part, brought: Brought) {
        if brought == Brought::Here
            && let Some(counted) = self.counted.lock().get_mut(&part.digest)
        {
            counted.was_here |= counted.landed == 0;
        }
        self.landed(part, part.size);
    }

    /// The sums so far.
    pub(super) fn sums(&self) -> Sums {
        let counted = self.counted.lock();
        counted.values().fold(Sums::default(), |sums, one| Sums {
            bytes: sums.bytes.saturating_add(one.size),
            landed: sums.landed.saturating_add(one.landed),
            fetched: sums
                .fetched
                .saturating_add(if one.was_here { 0 } else { one.landed }),
        })
    }
}

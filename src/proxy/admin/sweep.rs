//! Removing proofs of membership of what was evicted long ago: without that, a server that runs for years keeps a small file
//! for each blob that ever passed through it.
//!
//! Once a day, a repository at a time, off the way of requests. A proof that is gone costs one `HEAD` should anybody ask for
//! its content again, so only old ones go, and none that a tag names. Offline nothing goes, since nothing could be asked.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future;
use tokio::time::Instant;

use crate::oci::Digest;
use crate::proxy::Place;
use crate::proxy::adapt::stage_of;
use crate::runtime::{Clock, Tasks};
use crate::store::{PassedOver, RefKey, RefKind, RefKindName, RefLook, RefWalk, Store};
use crate::telemetry::Metrics;

use super::memory::Memory;
use super::{AdminError, blocking, walk};

/// The sweep of a data directory that is served.
pub(super) struct Sweep {
    pub(super) store: Arc<Store>,
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

/// What a round came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Proofs that were looked at.
    pub(super) looked: u64,
    /// Those that were removed.
    pub(super) removed: u64,
    /// Those of which nothing can be told, so that they stay: something on the way to them or to their content cannot be
    /// read.
    pub(super) unknown: u64,
    /// Those that should have gone and could not be removed.
    pub(super) stuck: u64,
}

/// An old proof of what is not stored.
type Found = (RefKey, RefLook);

/// All that the tags of a repository name; `None` where one of them cannot be understood.
type Named = Option<HashSet<Digest>>;

impl Sweep {
    /// Sweeps once a day until `tasks` is told to stop.
    pub(super) fn start(self, tasks: &Tasks) {
        tasks.spawn_until_stop(async move {
            // A start has other things to do, and until all is counted nobody knows what is stored.
            tokio::time::sleep(START_AFTER).await;
            self.store.scanned().await;
            loop {
                let started = Instant::now();
                match self.round().await {
                    Ok(swept) => tracing::info!(
                        looked = swept.looked,
                        removed = swept.removed,
                        unknown = swept.unknown,
                        stuck = swept.stuck,
                        elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                        "proofs of what was evicted long ago were looked for"
                    ),
                    Err(error) => {
                        tracing::warn!(%error, "proofs of what was evicted long ago cannot be looked for; tomorrow again");
                    }
                }
                tokio::time::sleep(EVERY).await;
            }
        });
    }

    /// Looks at every proof once.
    pub(super) async fn round(&self) -> Result<Swept, AdminError> {
        let mut swept = Swept::default();
        let mut from = None;
        loop {
            let (places, next) = self.places(from).await?;
            for place in places {
                if let Err(error) = self.place(&place, &mut swept).await {
                    tracing::warn!(upstream = %place.upstream, repository = %place.repository, %error,
                        "the proofs of a repository cannot be looked through");
                }
            }
            match next {
                Some(next) => from = Some(next),
                None => return Ok(swept),
            }
        }
    }

    /// Some repositories from `from` on, it included, and the one that follows.
    async fn places(&self, from: Option<Place>) -> Result<(Vec<Place>, Option<Place>), AdminError> {
        let store = Arc::clone(&self.store);
        let walk = move || {
            let (mut places, mut next) = (Vec::new(), None);
            let mut visit = |upstream, repository| {
                let place = Place {
                    upstream,
                    repository,
                };
                if places.len() == PLACES {
                    next = Some(place);
                    return Ok(ControlFlow::Break(()));
                }
                places.push(place);
                Ok(ControlFlow::Continue(()))
            };
            let from = from.as_ref();
            let from = from.map(|place| (&place.upstream, &place.repository));
            store.each_readable_repository(from, &mut visit, &mut |what| {
                if let PassedOver::Unreadable(_, error) = what {
                    tracing::warn!(%error, "a directory of records cannot be read; its proofs stay");
                }
                Ok(())
            })?;
            Ok::<_, io::Error>(((places, next), 1))
        };
        paced(walk).await
    }

    /// Removes what may go of one repository, a few proofs at a time: one may have a million. What is wrong with one of them
    /// is told once, and the others go on.
    async fn place(&self, place: &Place, swept: &mut Swept) -> Result<(), AdminError> {
        let mut named = None;
        let mut is_told = false;
        for kind in [RefKindName::Manifest, RefKindName::Blob] {
            let mut walk = self.walk(place, kind).await?;
            loop {
                let (read, some) = self.look(walk, swept, &mut is_told).await?;
                walk = read;
                let Some(mut found) = some else { break };
                if found.is_empty() {
                    continue;
                }
                let named = match &mut named {
                    Some(named) => named,
                    unread => unread.insert(self.named(place).await?),
                };
                let Some(named) = named else {
                    swept.unknown = swept.unknown.saturating_add(found.len() as u64);
                    continue;
                };
                found.retain(|(key, _)| digest_of(key).is_some_and(|it| !named.contains(it)));
                self.remove(place, &found, swept, &mut is_told).await;
            }
        }
        Ok(())
    }

    async fn walk(&self, place: &Place, kind: RefKindName) -> Result<RefWalk, AdminError> {
        let (store, of) = (Arc::clone(&self.store), place.clone());
        let begin = move || {
            let walk = store.walk_refs(&of.upstream, &of.repository, kind)?;
            Ok::<_, io::Error>((walk, 1))
        };
        paced(begin).await
    }

    async fn named(&self, place: &Place) -> Result<Named, AdminError> {
        let (store, of) = (Arc::clone(&self.store), place.clone());
        let name = move || {
            let named = named_by_tags(&store, &of)?;
            let count = named.as_ref().map_or(1, HashSet::len);
            Ok::<_, io::Error>((named, count))
        };
        paced(name).await
    }

    /// Looks for old proofs of what is not stored among the next ones; `None` at the end.
    async fn look(
        &self,
        mut walk: RefWalk,
        swept: &mut Swept,
        is_told: &mut bool,
    ) -> Result<(RefWalk, Option<Vec<Found>>), AdminError> {
        let store = Arc::clone(&self.store);
        let before = self.clock.now().checked_sub(KEPT);
        let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
        let look = move || {
            let keys = walk.next(AT_ONCE)?;
            let looks = keys.into_iter().map(|key| {
                let look = store.look_at_orphan(&key)?;
                let old = look.filter(|look| look.written < before);
                Ok(old.map(|look| (key, look)))
            });
            let looks: Vec<io::Result<Option<Found>>> = looks.collect();
            let count = looks.len();
            Ok::<_, io::Error>(((walk, looks), count))
        };
        let (walk, looks) = paced(look).await?;
        if looks.is_empty() {
            return Ok((walk, None));
        }
        let mut found = Vec::new();
        for look in looks {
            swept.looked = swept.looked.saturating_add(1);
            match look {
                Ok(old) => found.extend(old),
                Err(error) => {
                    tell(
                        is_told,
                        &error,
                        "nothing can be told of a proof, so it stays",
                    );
                    swept.unknown = swept.unknown.saturating_add(1);
                }
            }
        }
        Ok((walk, Some(found)))
    }

    /// Removes proofs, all of them with one commit, but for those that are what they were no longer.
    async fn remove(&self, place: &Place, found: &[Found], swept: &mut Swept, is_told: &mut bool) {
        let started = Instant::now();
        let removals = found.iter().map(|(key, look)| {
            // Whoever waits for a fetch goes by the proof that was there when it began.
            let stage = digest_of(key).and_then(|digest| stage_of(&key.upstream, digest));
            self.store.remove_orphan(key, *look, stage)
        });
        for ((key, _), removed) in found.iter().zip(future::join_all(removals).await) {
            match removed {
                Ok(true) => {
                    swept.removed = swept.removed.saturating_add(1);
                    self.metrics.cache.swept_proofs.inc();
                    if let Some(digest) = digest_of(key) {
                        self.memory.forget_proof(place, digest);
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    tell(
                        is_told,
                        &error,
                        "an old proof cannot be removed; tomorrow again",
                    );
                    swept.stuck = swept.stuck.saturating_add(1);
                }
            }
        }
        rest(started, found.len()).await;
    }
}

/// Says what is wrong with a proof, which the error names; of the same repository's next ones quietly.
fn tell(is_told: &mut bool, error: &io::Error, what: &str) {
    if std::mem::replace(is_told, true) {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::warn!(%error, "{what}; the next ones of this repository are not named");
    }
}

fn named_by_tags(store: &Store, place: &Place) -> io::Result<Named> {
    let mut named = HashSet::new();
    for tag in walk::tags(store, place)? {
        let Some(record) = walk::tag_record(store, place, &tag)? else {
            return Ok(None);
        };
        named.insert(record.digest);
        named.extend(record.previous);
    }
    Ok(Some(named))
}

fn digest_of(key: &RefKey) -> Option<&Digest> {
    match &key.kind {
        RefKind::Manifest(digest) | RefKind::Blob(digest) => Some(digest),
        RefKind::Tag(_) | RefKind::List(_) => None,
    }
}

/// Runs `work` where it may block, then rests for the records that it says it went over.
async fn paced<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<(T, usize)> + Send + 'static,
) -> Result<T, AdminError> {
    let started = Instant::now();
    let (done, records) = blocking(work).await?;
    rest(started, records).await;
    Ok(done)
}

/// Rests for as long as the work took that began then, so that the disk is there for others half of the time, and for
/// [`PER_RECORD`] for each of its `records` at least.
async fn rest(started: Instant, records: usize) {
    let records = u32::try_from(records).unwrap_or(u32::MAX);
    let least = PER_RECORD.saturating_mul(records);
    tokio::time::sleep(started.elapsed().max(least)).await;
}

/// How long a proof is kept that nobody wrote again, whether or not what it is about is here. Content that comes and goes,
/// as that of a monthly job, does not lose its proof in between, and a quarter of a year of small files is little.
pub(super) const KEPT: Duration = Duration::from_hours(90 * 24);

/// From the end of a round to the next.
const EVERY: Duration = Duration::from_hours(24);

/// After a start.
const START_AFTER: Duration = Duration::from_mins(10);

/// A thousand records a second are gone over at most.
const PER_RECORD: Duration = Duration::from_millis(1);

/// Records that are looked at, or removed, between two rests.
const AT_ONCE: usize = 128;

/// Repositories whose names are in memory at once.
const PLACES: usize = 256;

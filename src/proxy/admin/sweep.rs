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
use crate::runtime::{Clock, Tasks};
use crate::store::{PassedOver, RefKey, RefKind, RefKindName, RefLook, Store};
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
}

/// An old proof of what is not stored.
type Found = (RefKey, RefLook);

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

    /// Removes what may go of one repository.
    async fn place(&self, place: &Place, swept: &mut Swept) -> Result<(), AdminError> {
        let mut found = Vec::new();
        for kind in [RefKindName::Manifest, RefKindName::Blob] {
            self.look(place, kind, &mut found, swept).await?;
        }
        if found.is_empty() {
            return Ok(());
        }
        let (store, of) = (Arc::clone(&self.store), place.clone());
        let named = paced(move || {
            let named = named_by_tags(&store, &of)?;
            let count = named.as_ref().map_or(1, HashSet::len);
            Ok::<_, io::Error>((named, count))
        });
        let Some(named) = named.await? else {
            swept.unknown = swept.unknown.saturating_add(found.len() as u64);
            return Ok(());
        };
        found.retain(|(key, _)| digest_of(key).is_some_and(|digest| !named.contains(digest)));
        for found in found.chunks(AT_ONCE) {
            self.remove(place, found, swept).await?;
        }
        Ok(())
    }

    /// Looks for old proofs of what is not stored.
    async fn look(
        &self,
        place: &Place,
        kind: RefKindName,
        found: &mut Vec<Found>,
        swept: &mut Swept,
    ) -> Result<(), AdminError> {
        let (store, of) = (Arc::clone(&self.store), place.clone());
        let list = move || {
            let keys = store.list_refs(&of.upstream, &of.repository, kind)?;
            Ok::<_, io::Error>((keys, 1))
        };
        let mut keys = paced(list).await?;
        while !keys.is_empty() {
            let some = keys.split_off(keys.len().saturating_sub(AT_ONCE));
            let (count, store) = (some.len(), Arc::clone(&self.store));
            let before = self.clock.now().checked_sub(KEPT);
            let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
            let look = move || {
                let looks = some.into_iter().map(|key| {
                    let look = store.look_at_orphan(&key)?;
                    let old = look.filter(|look| look.written < before);
                    Ok(old.map(|look| (key, look)))
                });
                Ok::<_, io::Error>((looks.collect::<Vec<io::Result<_>>>(), count))
            };
            for look in paced(look).await? {
                swept.looked = swept.looked.saturating_add(1);
                match look {
                    Ok(old) => found.extend(old),
                    Err(error) => {
                        tracing::debug!(%error, "nothing can be told of a proof, so it stays");
                        swept.unknown = swept.unknown.saturating_add(1);
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes proofs, all of them with one commit, but for those that are what they were no longer.
    async fn remove(
        &self,
        place: &Place,
        found: &[Found],
        swept: &mut Swept,
    ) -> Result<(), AdminError> {
        let started = Instant::now();
        let removals = found
            .iter()
            .map(|(key, look)| self.store.remove_orphan(key, *look));
        let mut failed = Ok(());
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
                Err(error) => failed = Err(error),
            }
        }
        rest(started, found.len()).await;
        Ok(failed?)
    }
}

/// All that the tags of a repository name; `None` where one of them cannot be understood.
fn named_by_tags(store: &Store, place: &Place) -> io::Result<Option<HashSet<Digest>>> {
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

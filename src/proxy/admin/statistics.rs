//! What the cache holds and what it was good for, and the counts that outlive a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::config::UpstreamName;
use crate::oci::Digest;
use crate::proxy::Place;
use crate::runtime::Tasks;
use crate::store::{Note, RefKind, RefKindName, Store};
use crate::telemetry::{Counts, Tally};

use super::digests::DigestSet;
use super::model::{Statistics, UpstreamStatistics};
use super::walk;

/// `statistics.json`: the counts of all lives.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// When the first count began.
    pub(super) since: Option<Timestamp>,
    upstreams: BTreeMap<String, Counts>,
}

/// What one upstream has on disk.
#[derive(Debug, Default)]
struct Holdings {
    repositories: u64,
    tags: u64,
    blobs: u64,
    size: u64,
    seen: DigestSet,
}

/// Takes over the counts of earlier lives. Blocks shortly.
pub(super) fn load(store: &Store, tally: &Tally) -> io::Result<Kept> {
    let kept: Kept = match store.get_note(Note::Statistics)? {
        Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!(%error, "statistics.json is damaged: counts begin anew");
            Kept::default()
        }),
        None => Kept::default(),
    };
    tally.add(&kept.upstreams);
    Ok(kept)
}

/// Writes the counts now and then, and once more when `tasks` is told to stop.
pub(super) fn keep(store: Arc<Store>, tally: Arc<Tally>, since: Timestamp, tasks: &Tasks) {
    let stopping = tasks.stopping();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = Kept::default();
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                () = stopping.cancelled() => true,
            };
            let now = Kept {
                since: Some(since),
                upstreams: tally.counts(),
            };
            if now != written {
                match write(&store, &now).await {
                    Ok(()) => written = now,
                    Err(error) => warn!(%error, "statistics are not written"),
                }
            }
            if is_last {
                return;
            }
        }
    });
}

async fn write(store: &Store, kept: &Kept) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(kept)?;
    store.put_note(Note::Statistics, bytes).await
}

/// Counts what is stored; looks at names only. Blocks for as long as they are many.
pub(super) fn count(
    store: &Store,
    tally: &Tally,
) -> io::Result<(UpstreamStatistics, Vec<UpstreamStatistics>)> {
    let mut holdings: BTreeMap<String, Holdings> = BTreeMap::new();
    let mut in_repository = |upstream: UpstreamName, repository| {
        let place = Place {
            upstream,
            repository,
        };
        let held = holdings.entry(place.upstream.to_string()).or_default();
        held.add(store, &place)?;
        Ok(ControlFlow::Continue(()))
    };
    store.each_repository(None, &mut in_repository, &mut |_| {})?;
    let counts = tally.counts();
    // Built-in upstreams that nobody has used would only be noise.
    let names: BTreeSet<String> = holdings.keys().chain(counts.keys()).cloned().collect();
    let mut total = Holdings::default();
    let mut total_counts = Counts::default();
    let mut upstreams = Vec::new();
    for name in names {
        let held = holdings.remove(&name).unwrap_or_default();
        let counted = counts.get(&name).copied().unwrap_or_default();
        total.repositories = total.repositories.saturating_add(held.repositories);
        total.tags = total.tags.saturating_add(held.tags);
        total_counts = total_counts.plus(&counted);
        upstreams.push(held.with(name, &counted));
    }
    let stored = store.totals();
    total.blobs = stored.blobs;
    total.size = stored.bytes;
    Ok((total.with(String::new(), &total_counts), upstreams))
}

impl Holdings {
    fn add(&mut self, store: &Store, place: &Place) -> io::Result<()> {
        let tags = walk::tags(store, place)?.len() as u64;
        let mut digests = walk::manifests(store, place)?;
        let proofs = store.list_refs(&place.upstream, &place.repository, RefKindName::Blob)?;
        digests.extend(proofs.into_iter().filter_map(|key| match key.kind {
            RefKind::Blob(digest) => Some(digest),
            _ => None,
        }));
        self.tags = self.tags.saturating_add(tags);
        // A repository of which nothing but lists is known holds nothing.
        if tags > 0 || !digests.is_empty() {
            self.repositories = self.repositories.saturating_add(1);
        }
        for digest in &digests {
            self.add_blob(store, digest);
        }
        Ok(())
    }

    fn add_blob(&mut self, store: &Store, digest: &Digest) {
        if let Some(len) = store.counted_len(digest)
            && self.seen.insert(digest)
        {
            self.blobs = self.blobs.saturating_add(1);
            self.size = self.size.saturating_add(len);
        }
    }

    fn with(self, upstream: String, counts: &Counts) -> UpstreamStatistics {
        UpstreamStatistics {
            upstream,
            repositories: self.repositories,
            tags: self.tags,
            blobs: self.blobs,
            size_bytes: self.size,
            requests: counts.requests,
            hits: counts.hits,
            request_hit_ratio: ratio(counts.hits, counts.requests),
            served_bytes: counts.served_bytes,
            hit_bytes: counts.hit_bytes,
            byte_hit_ratio: ratio(counts.hit_bytes, counts.served_bytes),
            upstream_bytes: counts.upstream_bytes,
            saved_bytes: counts.served_bytes.saturating_sub(counts.upstream_bytes),
        }
    }
}

impl Statistics {
    /// The answer, out of what was counted.
    pub(super) fn of(
        store: &Store,
        (total, upstreams): (UpstreamStatistics, Vec<UpstreamStatistics>),
        max_size_bytes: Option<u64>,
        since: Option<Timestamp>,
    ) -> Self {
        Self {
            size_bytes: total.size_bytes,
            blobs: total.blobs,
            counting: !store.is_scanned(),
            max_size_bytes,
            since,
            total,
            upstreams,
        }
    }
}

/// `None` where there is nothing to divide by; four digits are more than enough.
#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio need not be exact to the last of 2^53 bytes"
)]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e4).round() / 1e4)
}

/// Counts are written so often at most; a crash loses as much of them.
const WRITE_EVERY: Duration = Duration::from_secs(60);

//! Reading everything that is stored again and again, slowly, so that a bad byte does not stay for long.
//!
//! Goes through the blobs in the order of their names and remembers how far it is in a note, so that a restart goes on
//! where the last life ended. What is found faulty is moved aside, as by a verification. All of it is off the way of
//! requests: one small read at a time, with rests between them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::oci::Digest;
use crate::runtime::{Clock, Tasks};
use crate::store::{Begun, BlobShard, Note, PassedOver, ShardEntry, Soundness, Totals};

use super::heal::Healer;
use super::{AdminError, blocking};

/// The scrub of a data directory that is served.
pub(super) struct Scrub {
    healer: Healer,
    /// Everything is read once in this time.
    interval: Duration,
    clock: Clock,
    at: Position,
    /// When the note was last written.
    noted: Instant,
    /// What has been read and not rested for, as [`cost`] has it.
    debt: f64,
}

/// `scrub.json`: how far the scrub is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    /// When this round began.
    began: Option<Timestamp>,
    /// The last blob that was read in it.
    after: Option<Digest>,
    /// Blobs that were read in it.
    blobs: u64,
    /// Their bytes.
    bytes: u64,
    /// Those that were not sound.
    faulty: u64,
}

impl Scrub {
    /// Scrubs until `tasks` is told to stop.
    pub(super) fn start(healer: Healer, interval: Duration, clock: Clock, tasks: &Tasks) {
        let stopping = tasks.stopping();
        let mut scrub = Self {
            healer,
            interval,
            clock,
            at: Position::default(),
            noted: Instant::now(),
            debt: 0.0,
        };
        tasks.spawn(async move {
            stopping.run_until_cancelled(scrub.run()).await;
            // A round that has not begun has nothing to be noted.
            if scrub.at.began.is_some() {
                scrub.note().await;
            }
        });
    }

    async fn run(&mut self) {
        // A start has other things to read, and the pace depends on how much there is.
        tokio::time::sleep(START_AFTER.min(self.interval)).await;
        self.healer.store.scanned().await;
        self.at = self.noted_position().await;
        loop {
            if self.at.began.is_none() {
                self.at.began = Timestamp::try_from(self.clock.now()).ok();
            }
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "the scrub cannot go on; it tries again later");
                tokio::time::sleep(SLICE).await;
                continue;
            }
            let Position {
                blobs,
                bytes,
                faulty,
                ..
            } = self.at;
            tracing::info!(
                blobs,
                size_bytes = bytes,
                faulty,
                "everything stored was read and compared once more"
            );
            self.healer.metrics.cache.scrub_rounds.inc();
            self.at = Position::default();
            self.note().await;
            tokio::time::sleep(BETWEEN_ROUNDS).await;
        }
    }

    /// Reads what is left of a round.
    async fn round(&mut self) -> Result<(), AdminError> {
        let store = Arc::clone(&self.healer.store);
        let (shards, passed_over) = blocking(move || store.blob_shards()).await?;
        for what in passed_over {
            if let PassedOver::Unreadable(_, error) = what {
                tracing::warn!(%error, "a directory of blobs cannot be read; the scrub goes on without it");
                // There may be nothing else to be read.
                tokio::time::sleep(SLICE).await;
            }
        }
        for shard in shards {
            let after = self.at.after.as_ref();
            if after.is_some_and(|after| shard.is_before(after)) {
                continue;
            }
            self.rest(0).await;
            for digest in self.blobs_of(shard).await? {
                if self.at.after.as_ref().is_none_or(|after| digest > *after) {
                    self.blob(digest).await?;
                }
            }
        }
        Ok(())
    }

    /// The blobs of a shard; none, logged, where it cannot be listed.
    async fn blobs_of(&self, shard: BlobShard) -> Result<Vec<Digest>, AdminError> {
        let store = Arc::clone(&self.healer.store);
        let listed = move || {
            Ok::<_, AdminError>(match store.shard_entries(&shard) {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::warn!(%error, "a directory of blobs cannot be read; it is passed over");
                    Vec::new()
                }
            })
        };
        let entries = blocking(listed).await?;
        let digest = |entry| match entry {
            ShardEntry::Blob(digest) => Some(digest),
            ShardEntry::Foreign(_) => None,
        };
        Ok(entries.into_iter().filter_map(digest).collect())
    }

    async fn blob(&mut self, digest: Digest) -> Result<(), AdminError> {
        let (soundness, read) = self.check(&digest).await?;
        if !matches!(soundness, Soundness::Missing) {
            let metrics = &self.healer.metrics.cache;
            metrics.scrub_blobs.inc();
            self.at.blobs = self.at.blobs.saturating_add(1);
            self.at.bytes = self.at.bytes.saturating_add(read);
        }
        let known = self.healer.store.counted_len(&digest);
        if self.healer.heal(&digest, soundness, known).await.is_some() {
            self.at.faulty = self.at.faulty.saturating_add(1);
        }
        self.at.after = Some(digest);
        if self.noted.elapsed() >= NOTE_EVERY {
            self.note().await;
        }
        self.rest(read).await;
        Ok(())
    }

    /// Compares a blob with its digest; how many bytes that took. Never faster than [`Scrub::speed`].
    async fn check(&self, digest: &Digest) -> Result<(Soundness, u64), AdminError> {
        let (store, of) = (Arc::clone(&self.healer.store), digest.clone());
        let mut check = match blocking(move || store.begin_check(&of)).await? {
            Begun::Check(check) => check,
            Begun::Ended(soundness) => return Ok((soundness, 0)),
        };
        loop {
            let (started, before) = (Instant::now(), check.read());
            let step = move || {
                let step = check.step()?;
                Ok::<_, io::Error>((check, step))
            };
            let (stepped, step) = blocking(step).await?;
            check = stepped;
            let read = check.read().saturating_sub(before);
            self.healer.metrics.cache.scrub_bytes.inc_by(read);
            if let Some(soundness) = step {
                return Ok((soundness, check.read()));
            }
            let least = Duration::from_secs_f64(cost_of(read) / self.speed());
            tokio::time::sleep_until(started + least).await;
        }
    }

    /// Rests until what was read, `read` bytes more, is no more than its share of the interval. The pace is that of the
    /// moment: much may come and go while it rests.
    async fn rest(&mut self, read: u64) {
        self.debt += cost(1, read);
        loop {
            let pace = pace(self.healer.store.totals(), self.interval);
            let left = self.debt / pace;
            if left <= SLICE.as_secs_f64() {
                tokio::time::sleep(Duration::from_secs_f64(left)).await;
                self.debt = 0.0;
                return;
            }
            tokio::time::sleep(SLICE).await;
            self.debt -= pace * SLICE.as_secs_f64();
        }
    }

    /// How fast a single blob is read, per second: a large one is not held open for days, and the disk is left to others
    /// for most of the time.
    fn speed(&self) -> f64 {
        let pace = pace(self.healer.store.totals(), self.interval);
        (2.0 * pace).max(LEAST_SPEED)
    }

    async fn noted_position(&self) -> Position {
        let store = Arc::clone(&self.healer.store);
        let noted = blocking(move || store.get_note(Note::Scrub)).await;
        let parsed = noted.map(|bytes| {
            let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes);
            bytes.map(read).transpose()
        });
        match parsed {
            Ok(Ok(position)) => position.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "scrub.json is damaged: the scrub begins anew");
                Position::default()
            }
            Err(error) => {
                tracing::warn!(%error, "scrub.json cannot be read: the scrub begins anew");
                Position::default()
            }
        }
    }

    async fn note(&mut self) {
        self.noted = Instant::now();
        let written = match serde_json::to_vec(&self.at) {
            Ok(bytes) => self.healer.store.put_note(Note::Scrub, bytes).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "how far the scrub is cannot be written; a restart begins further back");
        }
    }
}

/// What is to be read per second, as [`cost`] has it, so that all of it is read once in `interval`.
fn pace(totals: Totals, interval: Duration) -> f64 {
    let all = cost(totals.blobs.saturating_add(SHARDS), totals.bytes);
    all / interval.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// What `files` files with `bytes` bytes are to the disk: finding one costs as much as so many bytes more.
fn cost(files: u64, bytes: u64) -> f64 {
    cost_of(bytes) + cost_of(files) * FILE_COST
}

#[expect(clippy::cast_precision_loss, reason = "a pace need not be exact")]
fn cost_of(bytes: u64) -> f64 {
    bytes as f64
}

/// A file's own cost, in bytes.
const FILE_COST: f64 = 65_536.0;

/// Directories of blobs, which are looked into too.
const SHARDS: u64 = 256;

/// Bytes per second at which a single blob is read at least.
const LEAST_SPEED: f64 = 16.0 * 1024.0 * 1024.0;

/// After a start.
const START_AFTER: Duration = Duration::from_mins(1);

/// A pace holds for so long.
const SLICE: Duration = Duration::from_mins(1);

/// A crash loses so much of the way.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// However little there is to be read.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

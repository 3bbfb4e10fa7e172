//! Making room: blobs go before the limits are reached, at once when a fetch needs room, and when nobody has used them
//! for long.
//!
//! Owns when blobs go and how many; who goes is `usage`'s. Names are removed by the committer alone, in batches, so that
//! nothing is removed that was committed or opened since it was chosen. Imports what `store` imports.

mod ask;
mod carry_out;
mod pace;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::runtime::Clock;
use crate::telemetry::Metrics;

use super::change::Change;
use super::commit::Committer;
use super::layout::Layout;
use super::room::Room;
use super::usage::{Chosen, Demand, Usage};

pub(super) use ask::{Ask, Asks, Want};
pub(super) use carry_out::{Outcome, carry_out};
pub(super) use pace::Pace;

use carry_out::Gone;

/// Why blobs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// `max_size` is near.
    Size,
    /// `min_free` is near.
    Space,
    /// Nobody has used them for `max_age`.
    Age,
    /// A fetch needs room.
    Room,
    /// An operator wants it.
    Command,
}

impl Reason {
    /// Its name in metrics and logs.
    fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Space => "space",
            Self::Age => "age",
            Self::Room => "room",
            Self::Command => "command",
        }
    }
}

/// What has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evicted {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Evicted {
    fn and(self, other: Self) -> Self {
        Self {
            blobs: self.blobs.saturating_add(other.blobs),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Evicts. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Evictor {
    pub(super) usage: Arc<Usage>,
    pub(super) room: Arc<Room>,
    pub(super) committer: Committer,
    pub(super) layout: Layout,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// What nobody has used for so long goes; `None`: nothing does for its age.
    pub(super) max_age: Option<Duration>,
}

impl Evictor {
    /// Evicts when it is asked to, when the limits are near, and now and then what is old, until `stopping`.
    pub(super) async fn run(self, mut asks: UnboundedReceiver<Ask>, stopping: CancellationToken) {
        let mut rounds = tokio::time::interval(INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pressed = self.room.asks().pressed();
        let mut was_ready = false;
        let mut pace = Pace::default();
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                ask = asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => break,
                },
                () = self.usage.ready_to_choose(), if !was_ready => was_ready = true,
                () = pressed.notified(), if was_ready => self.relieve(&mut pace, &mut asks, &stopping).await,
                _ = rounds.tick(), if was_ready => {
                    self.expire(&mut asks, &stopping).await;
                    self.relieve(&mut pace, &mut asks, &stopping).await;
                }
            }
        }
    }

    /// Makes room for a fetch, or leaves everything as it is where that would take too much.
    async fn answer(&self, ask: Ask) {
        let made = self.make_room(ask.want).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "no room could be made");
            None
        });
        (ask.done)(made);
    }

    /// Returns the next [`Want::promised`] where another try is worth it.
    pub(super) async fn make_room(&self, want: Want) -> io::Result<Option<u64>> {
        let room = Arc::clone(&self.room);
        let shortage = blocking(move || room.shortage(want.needed)).await?;
        // Went before, and does not count as free yet.
        let pending = want.promised.saturating_sub(shortage.unfilled);
        let (wanted, most) = match shortage.by_size.max(shortage.by_space) {
            // In spite of all sums; evicting is a try.
            0 if want.is_disk_full => (
                want.needed.saturating_sub(pending),
                shortage.most.max(shortage.stored / 4),
            ),
            0 => return Ok(Some(want.promised)),
            _ => (
                shortage
                    .by_size
                    .max(shortage.by_space.saturating_sub(pending)),
                shortage.most,
            ),
        };
        if wanted == 0 || wanted > most {
            return Ok(None);
        }
        let mut chosen = self.nothing_chosen();
        let chosen = blocking(move || {
            chosen.add_all(Demand::Bytes(wanted));
            Ok(chosen)
        });
        let chosen = chosen.await?;
        if chosen.bytes() < wanted {
            return Ok(None);
        }
        let gone = self.evict_chosen(chosen, Reason::Room).await?.evicted.bytes;
        let promised = shortage.unfilled.max(want.promised).saturating_add(gone);
        Ok((gone > 0).then_some(promised))
    }

    /// Evicts once what a limit that is near asks for. For free space the disk is not asked again before a rest: it may
    /// take a while to count what went.
    pub(super) async fn relieve(
        &self,
        pace: &mut Pace,
        asks: &mut UnboundedReceiver<Ask>,
        stopping: &CancellationToken,
    ) {
        let room = Arc::clone(&self.room);
        let near = match blocking(move || room.nearness()).await {
            Ok(near) => near,
            Err(error) => {
                tracing::warn!(%error, "the limits cannot be compared with the disk");
                return;
            }
        };
        let is_resting = pace.is_resting();
        if !is_resting {
            pace.judge(near.unfilled);
        }
        let Some(pressure) = near.pressure else {
            return;
        };
        let is_for_space = pressure.reason == Reason::Space;
        if is_for_space && is_resting {
            return;
        }
        let mut gone = Gone::default();
        while gone.bytes() < pressure.bytes && !stopping.is_cancelled() {
            let left = Demand::Bytes(pressure.bytes).less(gone.bytes());
            let some = self.some(left, pressure.reason, asks).await;
            if some.is_nothing() {
                break;
            }
            gone = gone.and(some);
        }
        if is_for_space && !gone.is_nothing() {
            pace.evicted(near.unfilled, gone.evicted.bytes);
        }
    }

    /// Evicts what nobody has used for long.
    async fn expire(&self, asks: &mut UnboundedReceiver<Ask>, stopping: &CancellationToken) {
        let Some(age) = self.max_age else { return };
        let demand = Demand::unused_for(age, self.clock.now());
        while !stopping.is_cancelled() && !self.some(demand, Reason::Age, asks).await.is_nothing() {
        }
    }

    /// Evicts one batch, and makes room for whoever has asked meanwhile.
    async fn some(
        &self,
        demand: Demand,
        reason: Reason,
        asks: &mut UnboundedReceiver<Ask>,
    ) -> Gone {
        while let Ok(ask) = asks.try_recv() {
            self.answer(ask).await;
        }
        let mut chosen = self.nothing_chosen();
        chosen.add(demand, BATCH);
        self.evict(chosen, reason).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "nothing is evicted any more");
            Gone::default()
        })
    }

    /// What `max_age` and the limits ask for, or, with `to`, what is above so many bytes; with `dry_run` only what that
    /// would be. When it is dropped, what has not gone by then can still go later.
    pub(super) async fn collect(&self, to: Option<u64>, dry_run: bool) -> io::Result<Evicted> {
        self.usage.ready_to_choose().await;
        let old = self.max_age.filter(|_| to.is_none());
        let old = old.map(|age| Demand::unused_for(age, self.clock.now()));
        let excess = if let Some(to) = to {
            self.usage.totals().bytes.saturating_sub(to)
        } else {
            let room = Arc::clone(&self.room);
            blocking(move || room.excess()).await?
        };
        if dry_run {
            let mut chosen = self.nothing_chosen();
            return blocking(move || {
                if let Some(old) = old {
                    chosen.add_all(old);
                }
                chosen.add_all(Demand::Bytes(excess).less(chosen.bytes()));
                Ok(Evicted {
                    blobs: chosen.count() as u64,
                    bytes: chosen.bytes(),
                })
            })
            .await;
        }
        let mut gone = Gone::default();
        if let Some(old) = old {
            gone = self.evict_all(old, Reason::Command).await?;
        }
        let rest = Demand::Bytes(excess).less(gone.bytes());
        gone = gone.and(self.evict_all(rest, Reason::Command).await?);
        Ok(gone.evicted)
    }

    /// Evicts all that is demanded, or what there is of it, in batches, and tries no more often than there are blobs.
    async fn evict_all(&self, demand: Demand, reason: Reason) -> io::Result<Gone> {
        let mut gone = Gone::default();
        let mut tries = usize::try_from(self.usage.totals().blobs).unwrap_or(usize::MAX);
        while tries > 0 {
            let mut chosen = self.nothing_chosen();
            if !chosen.add(demand.less(gone.bytes()), BATCH.min(tries)) {
                break;
            }
            tries -= chosen.count();
            gone = gone.and(self.evict(chosen, reason).await?);
        }
        Ok(gone)
    }

    /// Evicts what is chosen, in batches.
    async fn evict_chosen(&self, mut chosen: Chosen, reason: Reason) -> io::Result<Gone> {
        let mut gone = Gone::default();
        while chosen.count() > 0 {
            let batch = chosen.take_first(BATCH);
            gone = gone.and(self.evict(batch, reason).await?);
        }
        Ok(gone)
    }

    async fn evict(&self, chosen: Chosen, reason: Reason) -> io::Result<Gone> {
        if chosen.count() == 0 {
            return Ok(Gone::default());
        }
        let outcome = Arc::new(Outcome::default());
        let change = Change::Evict {
            chosen,
            outcome: Arc::clone(&outcome),
            target: self.layout.blobs_dir(),
        };
        self.committer.make(change).await?;
        let gone = outcome.gone();
        if gone.evicted.blobs > 0 {
            let reason = reason.as_str();
            self.metrics.cache.evicted(reason, gone.evicted.blobs);
            tracing::info!(
                reason,
                blobs = gone.evicted.blobs,
                size_bytes = gone.evicted.bytes,
                left_bytes = self.usage.totals().bytes,
                "blobs evicted"
            );
        }
        Ok(gone)
    }

    fn nothing_chosen(&self) -> Chosen {
        Chosen::new(&self.usage, &self.clock)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// The limits are compared with the disk so often at least: others write to it too.
const INTERVAL: Duration = Duration::from_secs(10);

/// Blobs whose names are removed in one go: freeing a large file takes a while, and commits wait for it.
const BATCH: usize = 64;

//! Room first: whether there is place for what is to be written, and the claim on it while it is written.

mod sizes;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::MinFree;

use crate::store::evict::Asks;
use crate::store::files::{Files, Space, at, is_full};
use crate::store::partial::Shelf;
use crate::store::usage::Usage;

use sizes::{Pressure, Sizes};

/// Why there is no stage.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The limits leave no room for it.
    #[error(
        "no room for {needed} bytes: raise cache.max_size, lower cache.min_free, or free disk space"
    )]
    NoRoom {
        /// What was asked for.
        needed: u64,
        /// The disk itself takes no more, whatever the sums say.
        is_disk_full: bool,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<RoomError> for io::Error {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::NoRoom { .. } => Self::new(io::ErrorKind::StorageFull, error),
            RoomError::Io(error) => error,
        }
    }
}

/// The limits of the data directory.
#[derive(Debug)]
pub(super) struct Room {
    max_size: Option<u64>,
    min_free: MinFree,
    dir: PathBuf,
    files: Arc<dyn Files>,
    usage: Arc<Usage>,
    /// What goes first when there is no room.
    shelf: Arc<Shelf>,
    claims: Arc<Claims>,
    snapshot: Mutex<Option<Snapshot>>,
    /// Who makes room.
    asks: Asks,
}

/// Sums over all reservations.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    /// Bytes reserved.
    held: u64,
    /// Of these, bytes that the file system already counts as taken.
    landed: u64,
    /// Of those held, bytes that were written.
    written: u64,
    /// All bytes that ever landed.
    ever_landed: u64,
}

/// What the file system said.
#[derive(Debug, Clone, Copy)]
struct Snapshot {
    taken: Instant,
    space: Space,
    /// [`Sums::ever_landed`] before it was asked: it may not know of what has landed since.
    ever_landed: u64,
}

/// What there is no room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shortage {
    /// Bytes that would have to go for `max_size`.
    pub(super) by_size: u64,
    /// Bytes that would have to go for `min_free`.
    pub(super) by_space: u64,
    /// The most that may go for fetches.
    pub(super) most: u64,
    /// All bytes of blobs.
    pub(super) stored: u64,
    /// What would be free had nothing been written in this life: only what others write and what goes changes it.
    pub(super) unfilled: u64,
}

/// How near the limits are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nearness {
    /// What should go before anybody has to wait for it.
    pub(super) pressure: Option<Pressure>,
    /// See [`Shortage::unfilled`].
    pub(super) unfilled: u64,
}

/// Whether there is room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fits,
    /// Not now; it would without the idle partials.
    Crowded,
    /// Not even then.
    TooMuch,
}

impl Room {
    pub(super) fn new(
        max_size: Option<u64>,
        min_free: MinFree,
        dir: PathBuf,
        files: Arc<dyn Files>,
        usage: Arc<Usage>,
        shelf: Arc<Shelf>,
        asks: Asks,
    ) -> Self {
        Self {
            max_size,
            min_free,
            dir,
            files,
            usage,
            shelf,
            claims: Arc::default(),
            snapshot: Mutex::default(),
            asks,
        }
    }

    /// Where more room is asked for.
    pub(super) fn asks(&self) -> &Asks {
        &self.asks
    }

    /// Reserves `len` bytes. Where there is no room, idle partials go, the oldest first, if that helps. Blocks.
    pub(super) fn reserve(&self, len: u64) -> Result<Reservation, RoomError> {
        let reservation = Reservation::nothing(&self.claims);
        self.grow(&reservation, len)?;
        Ok(reservation)
    }

    /// Claims more, so that `len` bytes have room. Blocks like [`Room::reserve`].
    pub(super) fn grow(&self, reservation: &Reservation, len: u64) -> Result<(), RoomError> {
        loop {
            let more = len.saturating_sub(reservation.held());
            match self.claim(reservation, more)? {
                Verdict::Fits => return Ok(()),
                Verdict::Crowded if self.shelf.remove_oldest() => {}
                _ => {
                    return Err(RoomError::NoRoom {
                        needed: more,
                        is_disk_full: false,
                    });
                }
            }
        }
    }

    /// Does `work`, and again as long as the disk is full and an idle partial can go. For what no sum foresees: quotas,
    /// and others who write to the same disk. Blocks.
    pub(super) fn with_space<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match work() {
                Err(error) if is_full(&error) && self.shelf.remove_oldest() => {}
                other => return other,
            }
        }
    }

    /// Room that is taken already, by what an earlier life has left.
    pub(super) fn adopt(&self, len: u64) -> Reservation {
        let reservation = Reservation::nothing(&self.claims);
        reservation.settle(len);
        reservation
    }

    /// Adds `more` to a reservation where that fits.
    fn claim(&self, reservation: &Reservation, more: u64) -> io::Result<Verdict> {
        // Nothing wanted is no reason to refuse.
        if more == 0 {
            return Ok(Verdict::Fits);
        }
        let idle = self.shelf.idle_bytes();
        let recent = *self.snapshot.lock();
        let is_recent = |of: &Snapshot| more < LARGE && of.taken.elapsed() < SPACE_CACHED;
        if let Some(snapshot) = recent.filter(is_recent)
            && self.claim_by(&snapshot, reservation, more, idle) == Verdict::Fits
        {
            return Ok(Verdict::Fits);
        }
        // What was freed since is found before anything is refused.
        let snapshot = self.look()?;
        Ok(self.claim_by(&snapshot, reservation, more, idle))
    }

    fn claim_by(
        &self,
        snapshot: &Snapshot,
        reservation: &Reservation,
        more: u64,
        idle: u64,
    ) -> Verdict {
        let mut sums = self.claims.0.lock();
        // Asked under the lock: what is committed meanwhile is in here before it leaves the sums.
        let mut sizes = self.sizes(snapshot, &sums, idle);
        if sizes.missing(more, 0) == 0 {
            sums.held = sums.held.saturating_add(more);
            reservation.held.fetch_add(more, Ordering::Relaxed);
            drop(sums);
            sizes.held = sizes.held.saturating_add(more);
            if sizes.pressure().is_some() {
                self.asks.press();
            }
            Verdict::Fits
        } else if sizes.missing(more, idle) == 0 {
            Verdict::Crowded
        } else {
            Verdict::TooMuch
        }
    }

    fn sizes(&self, snapshot: &Snapshot, sums: &Sums, idle: u64) -> Sizes {
        let Space { total, available } = snapshot.space;
        let keep = match self.min_free {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Share(share) => part_of(total, share),
        };
        let since = sums.ever_landed.saturating_sub(snapshot.ever_landed);
        Sizes {
            max_size: self.max_size,
            keep,
            disk: total,
            left: available.saturating_sub(since),
            stored: self.usage.taken(),
            blobs: self.usage.totals().bytes,
            held: sums.held,
            landed: sums.landed,
            written: sums.written,
            idle,
        }
    }

    /// The sizes at this moment, and [`Shortage::unfilled`]. Blocks.
    fn sizes_now(&self) -> io::Result<(Sizes, u64)> {
        let idle = self.shelf.idle_bytes();
        let snapshot = self.look()?;
        let sizes = self.sizes(&snapshot, &self.claims.0.lock(), idle);
        let available = snapshot.space.available;
        Ok((sizes, available.saturating_add(snapshot.ever_landed)))
    }

    /// What `more` bytes are short of room for when all idle partials are gone. Blocks.
    pub(super) fn shortage(&self, more: u64) -> io::Result<Shortage> {
        let (sizes, unfilled) = self.sizes_now()?;
        Ok(Shortage {
            by_size: sizes.missing_by_size(more, sizes.idle),
            by_space: sizes.missing_by_space(more, sizes.idle),
            most: sizes.most_for_fetches(),
            stored: sizes.blobs,
            unfilled,
        })
    }

    /// How near the limits are. Blocks.
    pub(super) fn nearness(&self) -> io::Result<Nearness> {
        let (sizes, unfilled) = self.sizes_now()?;
        Ok(Nearness {
            pressure: sizes.pressure(),
            unfilled,
        })
    }

    /// What is above the low watermarks. Blocks.
    pub(super) fn excess(&self) -> io::Result<u64> {
        Ok(self.sizes_now()?.0.excess())
    }

    /// Waits, though not for long, until it is known what there is, where a limit stands against it; whether that has
    /// come to be known by waiting.
    pub(super) async fn counted(&self) -> bool {
        if self.max_size.is_none() || self.usage.taken().is_some() {
            return false;
        }
        let mut scanned = self.usage.scanned();
        let counted = tokio::time::timeout(LONGEST_COUNT, scanned.wait_for(|&done| done));
        counted.await.is_ok()
    }

    fn look(&self) -> io::Result<Snapshot> {
        let ever_landed = self.claims.0.lock().ever_landed;
        let space = self
            .files
            .space(&self.dir)
            .map_err(|error| at("ask for the free space of", &self.dir, &error))?;
        let snapshot = Snapshot {
            taken: Instant::now(),
            space,
            ever_landed,
        };
        *self.snapshot.lock() = Some(snapshot);
        Ok(snapshot)
    }
}

/// A claim on room, given back when dropped. One for each file, whoever has it open.
#[derive(Debug)]
pub(super) struct Reservation {
    claims: Arc<Claims>,
    /// Bytes claimed. Changed under the lock of the sums, as the next.
    held: AtomicU64,
    /// Of these, what the file system counts as taken.
    landed: AtomicU64,
    /// Of these, what was written.
    written: AtomicU64,
}

impl Reservation {
    fn nothing(claims: &Arc<Claims>) -> Self {
        Self {
            claims: Arc::clone(claims),
            held: AtomicU64::new(0),
            landed: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// Bytes claimed.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Notes that the file system now counts `len` of the bytes as taken.
    pub(super) fn land(&self, len: u64) {
        let mut sums = self.claims.0.lock();
        let written = self.written.load(Ordering::Relaxed);
        self.set(&mut sums, self.held(), len, written);
    }

    /// Notes that so many bytes were written.
    pub(super) fn wrote(&self, count: u64) {
        let mut sums = self.claims.0.lock();
        let landed = self.landed.load(Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed).saturating_add(count);
        self.set(&mut sums, self.held(), landed, written);
    }

    /// Claims exactly the `len` bytes that the file system counts as taken.
    pub(super) fn settle(&self, len: u64) {
        let mut sums = self.claims.0.lock();
        self.set(&mut sums, len, len, len);
    }

    /// Claims exactly `len` bytes, none of which the file system counts as taken any more.
    pub(super) fn start_over(&self, len: u64) {
        let mut sums = self.claims.0.lock();
        self.set(&mut sums, len, 0, 0);
    }

    /// Gives the claim back.
    pub(super) fn release(&self) {
        self.settle(0);
    }

    fn set(&self, sums: &mut Sums, held: u64, landed: u64, written: u64) {
        let (landed, written) = (landed.min(held), written.min(held));
        let before = self.held.swap(held, Ordering::Relaxed);
        sums.held = sums.held.saturating_sub(before).saturating_add(held);
        let before = self.written.swap(written, Ordering::Relaxed);
        sums.written = sums.written.saturating_sub(before).saturating_add(written);
        let before = self.landed.swap(landed, Ordering::Relaxed);
        sums.landed = sums.landed.saturating_sub(before).saturating_add(landed);
        let new = landed.saturating_sub(before);
        sums.ever_landed = sums.ever_landed.saturating_add(new);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release();
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is not exact, is clamped to 0..=1, and float casts saturate"
)]
fn part_of(total: u64, share: f64) -> u64 {
    (total as f64 * share.clamp(0.0, 1.0)) as u64
}

/// A fetch waits no longer until it is known how much there is.
const LONGEST_COUNT: Duration = Duration::from_secs(1);

/// The file system is asked for its free space so often at most.
const SPACE_CACHED: Duration = Duration::from_secs(1);
/// Before so much is claimed, it is asked in any case: others write to the same disk.
const LARGE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests;

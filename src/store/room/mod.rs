//! Room first: whether there is place for what is to be written, and the claim on it while it is written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::MinFree;

use crate::store::files::{Files, Space, at, is_full};
use crate::store::partial::Shelf;
use crate::store::usage::Usage;

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
        }
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
                _ => return Err(RoomError::NoRoom { needed: more }),
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
        if let Some(snapshot) = recent.filter(|recent| recent.taken.elapsed() < SPACE_CACHED)
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
        let Space { total, available } = snapshot.space;
        let keep = match self.min_free {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Share(share) => part_of(total, share),
        };
        let mut sums = self.claims.0.lock();
        // Asked under the lock: what is committed meanwhile is in here before it leaves the sums.
        //
        // Until all is counted, this is too little rather than too much: a pull is not refused for what others have on
        // the same disk, and `min_free` holds all the same.
        let stored = self.usage.totals().bytes;
        let since = sums.ever_landed.saturating_sub(snapshot.ever_landed);
        let left = available.saturating_sub(since);
        let size = stored.saturating_add(sums.held).saturating_add(more);
        let to_come = sums.held.saturating_sub(sums.landed);
        let wanted = to_come.saturating_add(more).saturating_add(keep);
        let fits = |idle: u64| {
            let size = size.saturating_sub(idle);
            self.max_size.is_none_or(|most| size <= most) && wanted <= left.saturating_add(idle)
        };
        if fits(0) {
            sums.held = sums.held.saturating_add(more);
            reservation.held.fetch_add(more, Ordering::Relaxed);
            Verdict::Fits
        } else if fits(idle) {
            Verdict::Crowded
        } else {
            Verdict::TooMuch
        }
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
}

impl Reservation {
    fn nothing(claims: &Arc<Claims>) -> Self {
        Self {
            claims: Arc::clone(claims),
            held: AtomicU64::new(0),
            landed: AtomicU64::new(0),
        }
    }

    /// Bytes claimed.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Notes that the file system now counts `len` of the bytes as taken.
    pub(super) fn land(&self, len: u64) {
        let mut sums = self.claims.0.lock();
        self.set(&mut sums, self.held(), len);
    }

    /// Claims exactly the `len` bytes that the file system counts as taken.
    pub(super) fn settle(&self, len: u64) {
        let mut sums = self.claims.0.lock();
        self.set(&mut sums, len, len);
    }

    /// Claims exactly `len` bytes, none of which the file system counts as taken any more.
    pub(super) fn start_over(&self, len: u64) {
        let mut sums = self.claims.0.lock();
        self.set(&mut sums, len, 0);
    }

    /// Gives the claim back.
    pub(super) fn release(&self) {
        self.settle(0);
    }

    fn set(&self, sums: &mut Sums, held: u64, landed: u64) {
        let landed = landed.min(held);
        let before = self.held.swap(held, Ordering::Relaxed);
        sums.held = sums.held.saturating_sub(before).saturating_add(held);
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

/// The file system is asked for its free space so often at most.
const SPACE_CACHED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

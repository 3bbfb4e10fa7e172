//! Room first: whether there is place for what is to be written, and the claim on it while it is written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::MinFree;

use super::files::{Files, Space, at};
use super::usage::Usage;

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
    claims: Mutex<Claims>,
    space: Mutex<Option<(Instant, Space)>>,
}

/// Sums over all reservations.
#[derive(Debug, Default)]
struct Claims {
    /// Bytes reserved.
    held: u64,
    /// Of these, bytes that the file system already counts as taken.
    landed: u64,
}

impl Room {
    pub(super) fn new(
        max_size: Option<u64>,
        min_free: MinFree,
        dir: PathBuf,
        files: Arc<dyn Files>,
        usage: Arc<Usage>,
    ) -> Self {
        Self {
            max_size,
            min_free,
            dir,
            files,
            usage,
            claims: Mutex::default(),
            space: Mutex::default(),
        }
    }

    /// Reserves `len` bytes. Blocks shortly.
    pub(super) fn reserve(self: &Arc<Self>, len: u64) -> Result<Reservation, RoomError> {
        self.claim(len)?;
        Ok(Reservation {
            room: Arc::clone(self),
            held: len,
            landed: 0,
        })
    }

    fn claim(&self, len: u64) -> Result<(), RoomError> {
        let space = self.space()?;
        let keep = match self.min_free {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Share(share) => part_of(space.total, share),
        };
        let stored = self.usage.totals().bytes;
        let mut claims = self.claims.lock();
        let size = stored.saturating_add(claims.held).saturating_add(len);
        let to_come = claims.held.saturating_sub(claims.landed);
        let wanted = to_come.saturating_add(len).saturating_add(keep);
        // Nothing wanted is no reason to refuse: an empty blob, or one whose length is still to be seen.
        let fits = self.max_size.is_none_or(|most| size <= most) && wanted <= space.available;
        if len > 0 && !fits {
            return Err(RoomError::NoRoom { needed: len });
        }
        claims.held = claims.held.saturating_add(len);
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let cached = *self.space.lock();
        if let Some((taken, space)) = cached
            && taken.elapsed() < SPACE_CACHED
        {
            return Ok(space);
        }
        let space = self
            .files
            .space(&self.dir)
            .map_err(|error| at("ask for the free space of", &self.dir, &error))?;
        *self.space.lock() = Some((Instant::now(), space));
        Ok(space)
    }
}

/// A claim on room, given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    room: Arc<Room>,
    held: u64,
    landed: u64,
}

impl Reservation {
    /// Claims more, so that `len` bytes have room. Blocks shortly.
    pub(super) fn grow_to(&mut self, len: u64) -> Result<(), RoomError> {
        let more = len.saturating_sub(self.held);
        if more > 0 {
            self.room.claim(more)?;
            self.held = len;
        }
        Ok(())
    }

    /// Bytes claimed.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Notes that the file system now counts `len` of the bytes as taken.
    pub(super) fn land(&mut self, len: u64) {
        let more = len.min(self.held).saturating_sub(self.landed);
        self.landed += more;
        let mut claims = self.room.claims.lock();
        claims.landed = claims.landed.saturating_add(more);
    }

    /// Gives the claim back.
    pub(super) fn release(&mut self) {
        let mut claims = self.room.claims.lock();
        claims.held = claims.held.saturating_sub(std::mem::take(&mut self.held));
        claims.landed = claims
            .landed
            .saturating_sub(std::mem::take(&mut self.landed));
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
mod tests {
    use super::*;
    use crate::store::files::Disk;

    fn room(max_size: Option<u64>, min_free: MinFree) -> Arc<Room> {
        Arc::new(Room::new(
            max_size,
            min_free,
            std::env::temp_dir(),
            Arc::new(Disk),
            Arc::new(Usage::new(Arc::default())),
        ))
    }

    #[test]
    fn reservations_count_against_the_limit_until_they_are_dropped() {
        let room = room(Some(100), MinFree::Bytes(0));
        let mut first = room.reserve(60).unwrap();
        assert!(matches!(
            room.reserve(41),
            Err(RoomError::NoRoom { needed: 41 })
        ));
        let second = room.reserve(40).unwrap();
        assert!(first.grow_to(61).is_err());
        drop(second);
        first.grow_to(100).unwrap();
        assert!(room.reserve(1).is_err());
        drop(first);
        room.reserve(100).unwrap();
    }

    #[test]
    fn what_must_stay_free_is_not_given_away() {
        for min_free in [MinFree::Bytes(u64::MAX), MinFree::Share(1.0)] {
            let room = room(None, min_free);
            assert!(room.reserve(1).is_err(), "{min_free:?}");
            assert!(room.reserve(0).is_ok(), "{min_free:?}");
        }
    }

    #[test]
    fn room_that_is_already_on_disk_is_not_counted_twice() {
        let room = room(None, MinFree::Bytes(0));
        let available = room.space().unwrap().available;
        let mut first = room.reserve(available).unwrap();
        assert!(room.reserve(1).is_err());
        first.land(10);
        room.reserve(10).unwrap();
        first.land(5);
        assert!(room.reserve(11).is_err());
    }
}

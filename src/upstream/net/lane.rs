//! How far the bodies of HTTP/2 may be ahead of whoever reads them.
//!
//! A stream's window is what may wait for its reader in our memory, and what may be under way to us: in each round trip a
//! stream brings one window at most. Both want something else, so windows are wide for some bodies at once and narrow for
//! the rest; as windows are announced for a whole connection, each width has connections of its own.
//!
//! For each URL of an upstream, with the 192 bodies to be stored that may be under way and the 96 that pass the store by, at
//! most 16 × 2.5 MiB and 272 × 256 KiB wait in memory, 108 MiB in all, be the disk or the clients as slow as they like. At a
//! round trip of 100 ms one body to be stored comes with 26 MB/s, 16 at once with 419 MB/s, and each other with 2.6 MB/s.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The window of a connection's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Wide,
    Narrow,
}

/// Who reads an answer, and so how long it may wait to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Reader {
    /// We do, as soon as it is there.
    Us,
    /// The store: a blob, as fast as the disk takes it.
    Store,
    /// One client: a blob, as fast or slow as that is.
    Client,
}

/// Where an answer may come.
#[derive(Debug, Clone)]
pub(super) enum Lane {
    /// On any connection: it is read as soon as it is there.
    Any,
    /// With a wide window, for as long as this is held.
    Wide(#[expect(dead_code, reason = "counts by being held")] Arc<OwnedSemaphorePermit>),
    /// With a narrow window.
    Narrow,
}

/// The lanes of one URL of an upstream.
#[derive(Debug)]
pub(super) struct Lanes(Arc<Semaphore>);

/// Bodies that may have a wide window at once.
const WIDE: usize = 16;
const WIDE_WINDOW: u32 = 5 << 19;
const NARROW_WINDOW: u32 = 256 << 10;

impl Default for Lanes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WIDE)))
    }
}

impl Lanes {
    /// The lane of an answer: of one to be stored the widest that is free. A slow client would keep a wide one for long.
    pub(super) fn choose(&self, reader: Reader) -> Lane {
        match reader {
            Reader::Us => Lane::Any,
            Reader::Store => match Arc::clone(&self.0).try_acquire_owned() {
                Ok(permit) => Lane::Wide(Arc::new(permit)),
                Err(_) => Lane::Narrow,
            },
            Reader::Client => Lane::Narrow,
        }
    }
}

impl Lane {
    /// Whether it may use a connection of this width.
    pub(super) fn takes(&self, width: Width) -> bool {
        match self {
            Self::Any => true,
            Self::Wide(_) => width == Width::Wide,
            Self::Narrow => width == Width::Narrow,
        }
    }

    /// The width of a connection that is made for it.
    pub(super) fn width(&self) -> Width {
        match self {
            Self::Any | Self::Wide(_) => Width::Wide,
            Self::Narrow => Width::Narrow,
        }
    }
}

impl Width {
    /// In bytes.
    pub(super) fn window(self) -> u32 {
        match self {
            Self::Wide => WIDE_WINDOW,
            Self::Narrow => NARROW_WINDOW,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bodies_are_wide_until_one_ends() {
        let lanes = Lanes::default();
        let stored = || lanes.choose(Reader::Store);
        let mut wide: Vec<_> = (0..WIDE).map(|_| stored()).collect();
        assert!(wide.iter().all(|lane| lane.width() == Width::Wide));
        let further = stored();
        assert!(further.takes(Width::Narrow) && !further.takes(Width::Wide));
        assert!(matches!(lanes.choose(Reader::Us), Lane::Any));
        wide.pop();
        assert!(stored().takes(Width::Wide));
    }

    #[test]
    fn clients_leave_the_wide_windows_to_what_is_stored() {
        let lanes = Lanes::default();
        let passing: Vec<_> = (0..=WIDE).map(|_| lanes.choose(Reader::Client)).collect();
        assert!(passing.iter().all(|lane| matches!(lane, Lane::Narrow)));
        assert!(matches!(lanes.choose(Reader::Store), Lane::Wide(_)));
    }
}

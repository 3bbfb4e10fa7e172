//! How many requests to one upstream are under way at once, and who waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::upstream::net::Reader;

/// What a request takes of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Load {
    /// A manifest, a `HEAD`: over soon.
    Small,
    /// A list: over soon too, and taken whole into memory however long it is.
    List,
    /// The bytes of a blob, as fast as they come.
    Body,
    /// The bytes of a blob on their way past the store to one client, as fast as that takes them.
    Passing,
}

/// The places of one upstream. Each load has its own, so that bodies that take for ever leave room for manifests, and slow
/// clients of what is not stored leave room for what is; those who wait for one get it in the order they came.
#[derive(Debug)]
pub(in crate::upstream) struct Turns {
    small: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    passing: Arc<Semaphore>,
}

/// A place, free again when dropped.
#[derive(Debug)]
pub(in crate::upstream) struct Turn {
    permit: OwnedSemaphorePermit,
    passing: Arc<Semaphore>,
}

/// At 50 ms each, 1,280 a second; registries call less than that an attack.
const SMALL: usize = 64;
/// At the 16 MiB that a list may have, 128 MiB.
const LISTS: usize = 8;
/// With the small ones and the lists some 264 sockets for an upstream: a fourth of the descriptors that a process commonly may have.
const BODIES: usize = 192;
/// What passes by is asked for once per client, and costs a client's socket too: half as many again.
const PASSING: usize = 96;

impl Default for Turns {
    fn default() -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL)),
            lists: Arc::new(Semaphore::new(LISTS)),
            bodies: Arc::new(Semaphore::new(BODIES)),
            passing: Arc::new(Semaphore::new(PASSING)),
        }
    }
}

impl Turns {
    /// A place for a request of this load, before `deadline`.
    pub(in crate::upstream) async fn take(&self, load: Load, deadline: Instant) -> Option<Turn> {
        let place = Arc::clone(self.of(load)).acquire_owned();
        let permit = timeout_at(deadline, place).await.ok()?.ok()?;
        let passing = Arc::clone(&self.passing);
        Some(Turn { permit, passing })
    }

    /// How many may be under way at once.
    pub(in crate::upstream) fn most(load: Load) -> usize {
        match load {
            Load::Small => SMALL,
            Load::List => LISTS,
            Load::Body => BODIES,
            Load::Passing => PASSING,
        }
    }

    fn of(&self, load: Load) -> &Arc<Semaphore> {
        match load {
            Load::Small => &self.small,
            Load::List => &self.lists,
            Load::Body => &self.bodies,
            Load::Passing => &self.passing,
        }
    }

    /// Places that nobody has.
    #[cfg(test)]
    pub(in crate::upstream) fn free(&self, load: Load) -> usize {
        self.of(load).available_permits()
    }
}

impl Load {
    /// Who reads the answer.
    pub(in crate::upstream) fn reader(self) -> Reader {
        match self {
            Self::Small | Self::List => Reader::Us,
            Self::Body => Reader::Store,
            Self::Passing => Reader::Client,
        }
    }
}

impl Turn {
    /// Becomes a place among the bodies that pass by, if one is free; whether one was. Who waited for one here would wait in
    /// a place that others need.
    pub(in crate::upstream) fn pass(&mut self) -> bool {
        let permit = Arc::clone(&self.passing).try_acquire_owned();
        permit.map(|permit| self.permit = permit).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_without_end_leave_room_for_small_requests() {
        let turns = Turns::default();
        let mut bodies = Vec::new();
        for _ in 0..BODIES {
            bodies.push(turns.take(Load::Body, soon()).await.unwrap());
        }
        let began = Instant::now();
        assert!(turns.take(Load::Body, soon()).await.is_none());
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert!(turns.take(Load::Small, soon()).await.is_some());
        bodies.pop();
        assert!(turns.take(Load::Body, soon()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_place_goes_to_the_one_who_has_waited_longest() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..SMALL {
            taken.push(turns.take(Load::Small, soon()).await.unwrap());
        }
        let mut first = Box::pin(turns.take(Load::Small, soon()));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        let mut second = Box::pin(turns.take(Load::Small, soon()));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        taken.pop();
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert!(futures_util::poll!(first.as_mut()).is_ready());
    }
}

//! A store, an upstream that counts, and clients: everything around the table but the table itself.

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::claims::{Claim, Claims, Progress, Table};
use crate::lookup::{Duty, Look};

/// How a fetch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Delivered,
    Failed,
}

/// A fetch as its followers see it.
#[derive(Clone)]
struct Fetch(Arc<(Mutex<Outcome>, Condvar)>);

impl Fetch {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Outcome::Open), Condvar::new())))
    }

    fn outcome(&self) -> Outcome {
        *self.0.0.lock().unwrap()
    }

    fn set(&self, outcome: Outcome) {
        let mut now = self.0.0.lock().unwrap();
        if *now == Outcome::Open {
            *now = outcome;
        }
        self.0.1.notify_all();
    }

    /// A reader that waits for ever is a deadlock, which loom finds.
    fn wait(&self) -> Outcome {
        let mut now = self.0.0.lock().unwrap();
        while *now == Outcome::Open {
            now = self.0.1.wait(now).unwrap();
        }
        *now
    }
}

impl Progress for Fetch {
    fn leader_gone(&self) {
        self.set(Outcome::Failed);
    }
}

#[derive(Default)]
struct World {
    table: Table<u8, Fetch>,
    is_committed: Mutex<bool>,
    fetches: AtomicUsize,
}

const KEY: u8 = 7;

impl World {
    /// A client that wants the blob. Whether it got it. If it leads, its fetch is lost where `lost` says so.
    fn pull(&self, lost: Option<Duty>) -> bool {
        let mut look = Look::FIRST;
        loop {
            let found = match look {
                Look::Table => self.table.find(&KEY).map(|fetch| fetch.wait()),
                Look::Store => self.is_committed().then_some(Outcome::Delivered),
                Look::Claim => {
                    let is_open = |fetch: &Fetch| fetch.outcome() != Outcome::Failed;
                    Some(match self.table.claim(&KEY, is_open, Fetch::new) {
                        Claim::Leader(lease) => self.lead(lease, lost),
                        Claim::Follower(fetch) => fetch.wait(),
                    })
                }
            };
            match found {
                Some(outcome) => return outcome == Outcome::Delivered,
                None => look = look.in_vain(),
            }
        }
    }

    fn lead<L: Send>(&self, lease: L, lost: Option<Duty>) -> Outcome {
        let fetch = self
            .table
            .find(&KEY)
            .expect("a lease has its place in the table");
        let mut duty = Duty::FIRST;
        while duty != Duty::Leave {
            if Some(duty) == lost {
                drop(lease);
                return Outcome::Failed;
            }
            duty = match duty {
                Duty::LookAgain if self.is_committed() => {
                    fetch.set(Outcome::Delivered);
                    Duty::OVER
                }
                Duty::Fetch => {
                    self.fetches.fetch_add(1, Ordering::SeqCst);
                    // The readers have all bytes before they are durable.
                    fetch.set(Outcome::Delivered);
                    duty.done()
                }
                Duty::Commit => {
                    *self.is_committed.lock().unwrap() = true;
                    duty.done()
                }
                Duty::LookAgain | Duty::Leave => duty.done(),
            };
        }
        drop(lease);
        Outcome::Delivered
    }

    fn is_committed(&self) -> bool {
        *self.is_committed.lock().unwrap()
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

/// Explores with at most three switches against a thread's will, which is enough for every race of two and three.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn clients(losses: &'static [Option<Duty>]) -> (Arc<World>, usize) {
    let world = Arc::new(World::default());
    let threads: Vec<_> = losses[1..]
        .iter()
        .map(|lost| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.pull(*lost))
        })
        .collect();
    let mut served = usize::from(world.pull(losses[0]));
    for thread in threads {
        served += usize::from(thread.join().unwrap());
    }
    (world, served)
}

#[test]
fn a_blob_is_fetched_once_and_everybody_gets_it() {
    explore(|| {
        let (world, served) = clients(&[None, None, None]);
        assert_eq!(served, 3);
        assert_eq!(world.fetches(), 1);
        assert!(world.table.find(&KEY).is_none());
    });
}

#[test]
fn a_lost_leader_wakes_everybody_and_leaves_its_place() {
    explore(|| {
        let (world, _) = clients(&[Some(Duty::Fetch), Some(Duty::Fetch), None]);
        assert!(world.fetches() <= 1);
        assert!(world.table.find(&KEY).is_none());
        // Whoever comes now is served.
        assert!(world.pull(None));
        assert_eq!(world.fetches(), 1);
    });
}

#[test]
fn a_leader_that_is_lost_before_its_commit_costs_another_fetch_and_no_more() {
    explore(|| {
        let (world, _) = clients(&[Some(Duty::Commit), None]);
        assert!(world.pull(None));
        assert!(world.fetches() <= 2);
        assert!(world.is_committed());
    });
}

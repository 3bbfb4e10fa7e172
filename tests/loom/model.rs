//! A store, an upstream that counts, and clients: everything around the table but the table itself.

use std::convert::Infallible;

use futures_util::FutureExt as _;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::claims::{Claim, Claims, Progress, Table};
use crate::lookup::{Leading, Seeker, lead, seek};

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
    commits: AtomicU64,
    fetches: AtomicUsize,
}

const KEY: u8 = 7;

/// Where a leader is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    BeforeFetch,
    BeforeCommit,
}

/// A client. If it leads, its fetch is lost where `loss` says so.
struct Client<'w> {
    world: &'w World,
    loss: Option<Loss>,
    /// A look into the store before the one into the table.
    look: Option<Look>,
}

/// What was found, and how many commits there were before.
#[derive(Debug, Clone, Copy)]
struct Look {
    commits: u64,
    is_there: bool,
}

impl Look {
    fn into(world: &World) -> Self {
        Self {
            commits: world.commits.load(Ordering::Acquire),
            is_there: world.is_committed(),
        }
    }
}

impl Seeker for Client<'_> {
    type Found = Outcome;
    type Error = Infallible;

    fn in_table(&self) -> Option<Outcome> {
        self.world.table.find(&KEY).map(|fetch| fetch.wait())
    }

    fn commits(&self) -> u64 {
        let look = self.look.unwrap_or_else(|| Look::into(self.world));
        look.commits
    }

    async fn in_store(&self) -> Result<Option<Outcome>, Infallible> {
        let look = self.look.unwrap_or_else(|| Look::into(self.world));
        Ok(look.is_there.then_some(Outcome::Delivered))
    }

    fn claim(&self, commits: u64) -> Option<Outcome> {
        let fetch = Fetch::new();
        let is_open = |fetch: &Fetch| fetch.outcome() != Outcome::Failed;
        let claim = self.world.table.claim(&KEY, is_open, || fetch.clone());
        Some(match claim {
            Claim::Leader(lease) => {
                let leader = Leader {
                    world: self.world,
                    loss: self.loss,
                    commits,
                    fetch: fetch.clone(),
                };
                now(lead(lease, leader));
                fetch.wait()
            }
            Claim::Follower(fetch) => fetch.wait(),
        })
    }
}

struct Leader<'w> {
    world: &'w World,
    loss: Option<Loss>,
    commits: u64,
    fetch: Fetch,
}

impl Leader<'_> {
    fn is_lost(&self, loss: Loss) -> Result<(), Loss> {
        if self.loss == Some(loss) {
            return Err(loss);
        }
        Ok(())
    }
}

impl<L: Send> Leading<L> for Leader<'_> {
    type Error = Loss;

    fn is_news(&self) -> bool {
        self.world.commits.load(Ordering::Acquire) != self.commits
    }

    async fn look_again(&mut self) -> Result<bool, Loss> {
        let is_there = self.world.is_committed();
        if is_there {
            self.fetch.set(Outcome::Delivered);
        }
        Ok(is_there)
    }

    async fn fetch(&mut self) -> Result<bool, Loss> {
        self.is_lost(Loss::BeforeFetch)?;
        self.world.fetches.fetch_add(1, Ordering::SeqCst);
        // The readers have all bytes before they are durable.
        self.fetch.set(Outcome::Delivered);
        Ok(true)
    }

    async fn commit(&mut self) -> Result<(), Loss> {
        self.is_lost(Loss::BeforeCommit)?;
        *self.world.is_committed.lock().unwrap() = true;
        self.world.commits.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn fail(self, _why: Loss, lease: L) {
        drop(lease);
    }
}

/// What a future brings whose waiting, if any, blocks its thread.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it never yields")
}

impl World {
    /// A client that wants the blob, and looks into the store when it has looked into the table. Whether it got it.
    fn pull(&self, loss: Option<Loss>) -> bool {
        self.seek(loss, None)
    }

    /// The same of one that looked into the store first.
    fn look_and_pull(&self) -> bool {
        self.seek(None, Some(Look::into(self)))
    }

    fn seek(&self, loss: Option<Loss>, look: Option<Look>) -> bool {
        let client = Client {
            world: self,
            loss,
            look,
        };
        let Ok(outcome) = now(seek(&client));
        outcome == Outcome::Delivered
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

fn clients(losses: &'static [Option<Loss>]) -> (Arc<World>, usize) {
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
fn a_blob_is_fetched_once_also_for_those_who_look_into_the_store_first() {
    explore(|| {
        let world = Arc::new(World::default());
        let others: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.look_and_pull())
            })
            .collect();
        assert!(world.look_and_pull());
        for other in others {
            assert!(other.join().unwrap());
        }
        assert_eq!(world.fetches(), 1);
    });
}

#[test]
fn a_lost_leader_wakes_everybody_and_leaves_its_place() {
    explore(|| {
        let (world, _) = clients(&[Some(Loss::BeforeFetch), Some(Loss::BeforeFetch), None]);
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
        let (world, _) = clients(&[Some(Loss::BeforeCommit), None]);
        assert!(world.pull(None));
        assert!(world.fetches() <= 2);
        assert!(world.is_committed());
    });
}

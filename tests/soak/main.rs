//! Everything at once, for minutes: clients that pull, read ranges and leave, upstreams that break in every way, and a
//! program that is stopped and killed, all at random, against a model of what must be true whatever happens.
//!
//! `LAYBY_SOAK_SECONDS` says for how long (110 without it), `LAYBY_SOAK_SEED` repeats the choices of a run. How tasks and
//! packets meet is not repeated.

#[path = "../integration/fake/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with tests that need other parts of it"
)]
mod fake;
#[path = "../integration/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with tests that need other parts of it"
)]
mod support;

mod chaos;
mod client;
mod phase;
mod world;

use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;

use chaos::Chaos;
use client::Client;
use phase::{Kind, Phase};
use world::World;

/// Clients at once.
const CLIENTS: usize = 12;
/// How long clients are at work before all is looked at.
const PHASE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_every_byte_is_right_and_nothing_is_left_behind() {
    let seed = setting("LAYBY_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = setting("LAYBY_SOAK_SECONDS").unwrap_or(110);
    say(&format!(
        "soak: LAYBY_SOAK_SEED={seed} LAYBY_SOAK_SECONDS={seconds}"
    ));
    let mut rng = Rng::with_seed(seed);
    let world = Arc::new(World::start().await);
    let began = Instant::now();
    for number in 0.. {
        let kind = Kind::of(number);
        let phase = Arc::new(Phase::new(kind, PHASE));
        world.publish(number, &mut rng);
        run(&world, &phase, &mut rng).await;
        world.settle(&phase).await;
        let sent = world.account(&phase).await;
        world.assert_at_rest(&phase).await;
        say(&format!(
            "soak: phase {number} ({kind:?}): {} requests, {} not served, {sent}",
            phase.requests(),
            phase.unserved()
        ));
        if kind == Kind::Rough && began.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    world.end().await;
}

/// Has clients, and what is against them, at work until the phase is over.
async fn run(world: &Arc<World>, phase: &Arc<Phase>, rng: &mut Rng) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::new(world, phase, rng.fork());
        clients.spawn(client.run());
    }
    Chaos::new(world, phase, rng.fork()).run().await;
    while let Some(client) = clients.join_next().await {
        client.expect("a client that saw nothing wrong");
    }
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse();
    Some(value.unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Not by println!, whose output is kept back until a test fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

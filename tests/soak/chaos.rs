//! What goes wrong, and when.

use std::sync::Arc;

use fastrand::Rng;

use crate::fake::{Cut, Fake, Gate, Rule};
use crate::phase::{Kind, Phase};
use crate::support::{KIB, MIB};
use crate::world::World;

/// Makes things go wrong until the phase is over.
pub(crate) struct Chaos {
    world: Arc<World>,
    phase: Arc<Phase>,
    rng: Rng,
}

impl Chaos {
    pub(crate) fn new(world: &Arc<World>, phase: &Arc<Phase>, rng: Rng) -> Self {
        Self {
            world: Arc::clone(world),
            phase: Arc::clone(phase),
            rng,
        }
    }

    pub(crate) async fn run(mut self) {
        while !self.phase.is_over() {
            match self.phase.kind {
                Kind::Calm => {}
                Kind::Mild => self.break_blobs(),
                Kind::Rough => self.do_something().await,
            }
            let requests = self.rng.u64(5..60);
            self.phase.after(requests).await;
        }
    }

    /// Of the storage of either upstream.
    fn storage(&mut self) -> Fake {
        let upstream = self.rng.choice(&self.world.upstreams);
        upstream.expect("an upstream").storage.clone()
    }

    fn registry(&mut self) -> Fake {
        let upstream = self.rng.choice(&self.world.upstreams);
        upstream.expect("an upstream").registry.clone()
    }

    /// A few answers with blobs break off or stall wherever they are.
    fn break_blobs(&mut self) {
        let times = self.rng.usize(1..6);
        // Manifests by digest as well, which are too short to be hit.
        let rule = Rule::path("sha256:").times(times);
        let after = self.rng.u64(64 * KIB..4 * MIB);
        let rule = match self.rng.u8(0..5) {
            0..=2 => rule.cut_after(after, Cut::Fin),
            3 => rule.cut_after(after, Cut::Reset),
            _ => rule.times(1).stall_within(after..after + MIB),
        };
        let storage = self.storage();
        storage.mend();
        storage.script(rule);
    }

    async fn do_something(&mut self) {
        match self.rng.u8(0..12) {
            0 | 1 => self.restart().await,
            2 => self.outage().await,
            3..=5 => self.break_blobs(),
            6 => {
                let registry = self.registry();
                registry.mend();
                self.storage().mend();
            }
            _ => self.refuse(),
        }
    }

    async fn restart(&mut self) {
        let by_force = self.rng.bool();
        self.world.end_program(by_force).await;
        self.phase.program_ended();
        self.world.start_program().await;
    }

    /// An upstream is away while clients go on.
    async fn outage(&mut self) {
        let gone = if self.rng.bool() {
            self.registry()
        } else {
            self.storage()
        };
        gone.go_down().await;
        let requests = self.rng.u64(5..40);
        self.phase.after(requests).await;
        gone.come_back().await;
    }

    /// A few requests of one kind are answered with an error, or not at all.
    fn refuse(&mut self) {
        let times = self.rng.usize(1..20);
        let path = *self
            .rng
            .choice(&["/manifests/", "sha256:", "/tags/", "/token", "/"])
            .expect("a path");
        let method = *self.rng.choice(&["GET", "HEAD", "*"]).expect("a method");
        let rule = Rule::path(path).method(method).times(times);
        let limited = "Too Many Requests\n";
        let rule = match self.rng.u8(0..7) {
            0 => rule.error(500, "UNKNOWN"),
            1 => rule.error(503, "UNAVAILABLE"),
            2 => rule
                .answer(429, "text/plain", limited)
                .header("retry-after", "1"),
            3 => rule
                .error(429, "TOOMANYREQUESTS")
                .header("retry-after", "1"),
            4 => rule.hang_up(Cut::Reset),
            5 => rule.times(2).hold(&Gate::closed()),
            _ => rule.times(1).ignore_range(),
        };
        let target = if self.rng.bool() {
            self.registry()
        } else {
            self.storage()
        };
        target.mend();
        target.script(rule);
    }
}

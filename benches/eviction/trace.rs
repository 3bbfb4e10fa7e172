//! Requests over a month, made from the same seed at every run.

use crate::images::{Image, Images, Object, VERSIONS};
use crate::random::{Random, Zipf};

/// A request for one object, at a second since the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) at: u32,
    pub(crate) object: Object,
}

/// What clients ask for, in order.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) requests: Vec<Request>,
    pub(crate) sizes: Vec<u64>,
    /// Whether the cache is restarted every night, which leaves sizes and last uses of what it knew.
    pub(crate) restarts: bool,
}

const DAYS: u32 = 30;
const DAY: u32 = 86_400;
const HOUR: u32 = 3_600;

/// Repositories that are pulled in daily work, and those that only sweeps and warm-ups touch.
const WORK: usize = 400;
const REST: usize = 900;

/// Pulls of a working day.
const PULLS: usize = 600;

/// Images of a nightly sweep, and of the warm-up.
const SWEEP: usize = 300;
const WARM: usize = 500;
const WARM_DAY: u32 = 10;

struct Maker {
    images: Images,
    random: Random,
    requests: Vec<Request>,
}

/// All traces, smaller ones for a quick look.
pub(crate) fn all(quick: bool) -> Vec<Trace> {
    let days = if quick { 4 } else { DAYS };
    let make = |name, what, restarts, fill: fn(&mut Maker, u32)| {
        let mut maker = Maker::new();
        for day in 0..days {
            fill(&mut maker, day);
        }
        maker.finish(name, what, restarts)
    };
    vec![
        make(
            "work",
            "pulls of images by popularity, with new versions",
            false,
            Maker::work,
        ),
        make(
            "rollouts",
            "a new version goes to many nodes at once, and is seldom asked for later",
            false,
            |m, day| {
                m.work(day);
                m.rollouts(day);
            },
        ),
        make(
            "sweep",
            "daily work, and every night a CI job that pulls 300 images once each",
            false,
            |m, day| {
                m.work(day);
                m.sweep(day);
            },
        ),
        make(
            "warm",
            "daily work, and once, on day 10, 500 images that few will use",
            false,
            |m, day| {
                m.work(day);
                m.warm(day);
            },
        ),
        make("mix", "all of these", false, Maker::mix),
        make(
            "mix, restarts",
            "all of these, and a restart every night",
            true,
            Maker::mix,
        ),
    ]
}

impl Maker {
    fn new() -> Self {
        let mut random = Random::new(0x4C61_7962_7900);
        Self {
            images: Images::new(WORK + REST, &mut random),
            random,
            requests: Vec::new(),
        }
    }

    fn finish(mut self, name: &'static str, what: &'static str, restarts: bool) -> Trace {
        self.requests.sort_by_key(|request| request.at);
        Trace {
            name,
            what,
            requests: self.requests,
            sizes: self.images.sizes,
            restarts,
        }
    }

    /// Which version of a repository is the newest on that day: some release daily, some once a month.
    fn newest(repository: usize, day: u32) -> usize {
        let every = [1, 2, 4, 7, 14, 30][repository % 6];
        usize::try_from(day / every).map_or(0, |version| version.min(VERSIONS - 1))
    }

    /// Mostly the newest version, now and then one of the last few.
    fn version(&mut self, repository: usize, day: u32) -> usize {
        let newest = Self::newest(repository, day);
        if self.random.chance(0.8) {
            newest
        } else {
            newest.saturating_sub(1 + self.random.below(4))
        }
    }

    /// One pull. A node that has images already asks for what is the image's own.
    fn pull(&mut self, at: u32, repository: usize, version: usize, whole: bool) {
        let Image { base, own } = self.images.repositories[repository][version].clone();
        let base = if whole { base } else { Vec::new() };
        for (object, after) in own.into_iter().chain(base).zip(0_u32..) {
            self.requests.push(Request {
                at: at + after / 3,
                object,
            });
        }
    }

    fn time(&mut self, from: u32, span: u32) -> u32 {
        let within = self.random.below(span as usize);
        from + u32::try_from(within).unwrap_or(0)
    }

    fn work(&mut self, day: u32) {
        let popular = Zipf::new(WORK, 0.9);
        for _ in 0..PULLS {
            let at = self.time(day * DAY + 8 * HOUR, 10 * HOUR);
            // Popularity moves on: a few ranks a week.
            let shift = (day / 7) as usize * 10;
            let repository = (popular.draw(&mut self.random) + shift) % WORK;
            let version = self.version(repository, day);
            let whole = self.random.chance(0.5);
            self.pull(at, repository, version, whole);
        }
    }

    fn rollouts(&mut self, day: u32) {
        for _ in 0..15 {
            let at = self.time(day * DAY + 9 * HOUR, 8 * HOUR);
            let repository = self.random.below(WORK);
            let version = Self::newest(repository, day);
            let nodes = 10 + self.random.below(50);
            for _ in 0..nodes {
                let at = self.time(at, 120);
                let whole = self.random.chance(0.2);
                self.pull(at, repository, version, whole);
            }
        }
    }

    fn sweep(&mut self, day: u32) {
        for n in 0..SWEEP {
            let at = day * DAY + 2 * HOUR + u32::try_from(n).unwrap_or(0) * 10;
            let repository = WORK + n;
            self.pull(at, repository, Self::newest(repository, day), true);
        }
    }

    fn warm(&mut self, day: u32) {
        let warmed = WORK + SWEEP..WORK + SWEEP + WARM;
        if day == WARM_DAY {
            for (repository, n) in warmed.zip(0_u32..) {
                self.pull(day * DAY + 12 * HOUR + n * 5, repository, 0, true);
            }
        } else if day > WARM_DAY {
            for _ in 0..10 {
                let at = self.time(day * DAY + 8 * HOUR, 10 * HOUR);
                let repository = warmed.start + self.random.below(50);
                self.pull(at, repository, 0, false);
            }
        }
    }

    fn mix(&mut self, day: u32) {
        self.work(day);
        self.rollouts(day);
        self.sweep(day);
        self.warm(day);
    }
}

//! Runs a policy over a trace.

use std::collections::HashSet;

use crate::images::Object;
use crate::policy::{Policy, Stored};
use crate::trace::{Request, Trace};

/// What part of what was asked for was there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ratios {
    pub(crate) requests: f64,
    pub(crate) bytes: f64,
}

/// Bytes of everything that a trace asks for, once.
pub(crate) fn footprint(trace: &Trace) -> u64 {
    let distinct: HashSet<Object> = trace
        .requests
        .iter()
        .map(|request| request.object)
        .collect();
    distinct
        .into_iter()
        .map(|object| trace.sizes[object as usize])
        .sum()
}

const DAY: u32 = 86_400;

/// What a restart finds: the time of last use is on disk to the minute.
const GRAIN: u32 = 60;

/// The hit ratios of `policy` in a cache of `capacity` bytes, from the second day on: the first fills the cache.
pub(crate) fn run(trace: &Trace, capacity: u64, policy: &mut dyn Policy) -> Ratios {
    let mut cache = Cache {
        sizes: &trace.sizes,
        last_use: vec![None; trace.sizes.len()],
        bytes: 0,
        capacity,
    };
    let (mut asked, mut hits) = ((0_u64, 0_u64), (0_u64, 0_u64));
    let mut day = 0;
    for (&request, number) in trace.requests.iter().zip(0_u32..) {
        if trace.restarts && request.at / DAY != day {
            day = request.at / DAY;
            policy.restart(&cache.left());
        }
        let hit = cache.request(request, number, policy);
        if request.at >= DAY {
            let size = trace.sizes[request.object as usize];
            asked = (asked.0 + 1, asked.1 + size);
            if hit {
                hits = (hits.0 + 1, hits.1 + size);
            }
        }
    }
    Ratios {
        requests: ratio(hits.0, asked.0),
        bytes: ratio(hits.1, asked.1),
    }
}

struct Cache<'a> {
    sizes: &'a [u64],
    /// Of what is stored.
    last_use: Vec<Option<u32>>,
    bytes: u64,
    capacity: u64,
}

impl Cache<'_> {
    /// Serves a request; whether from what was stored.
    fn request(&mut self, request: Request, number: u32, policy: &mut dyn Policy) -> bool {
        let object = request.object;
        let size = self.sizes[object as usize];
        policy.asked(object, number);
        let last_use = &mut self.last_use[object as usize];
        if last_use.replace(request.at).is_some() {
            policy.hit(object, request.at);
            return true;
        }
        if size > self.capacity {
            *last_use = None;
            return false;
        }
        while self.bytes + size > self.capacity {
            let victim = policy.evict().expect("something is stored");
            self.last_use[victim as usize] = None;
            self.bytes -= self.sizes[victim as usize];
        }
        policy.insert(object, size, request.at);
        self.bytes += size;
        false
    }

    /// What is on disk, from the one used longest ago.
    fn left(&self) -> Vec<Stored> {
        let stored = self.last_use.iter().zip(0..).filter_map(|(used, object)| {
            Some(Stored {
                object,
                size: self.sizes[object as usize],
                used: (*used)? / GRAIN * GRAIN,
            })
        });
        let mut stored: Vec<Stored> = stored.collect();
        stored.sort_by_key(|stored| (stored.used, stored.object));
        stored
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio is not exact")]
fn ratio(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

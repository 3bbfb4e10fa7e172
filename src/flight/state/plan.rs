//! Which step comes next. Pure.

use std::ops::Range;

use super::{First, MAX_STEPS, Ranges, Reach, STEP, State, Step, StepId};

/// So many bytes before what is on the way for a reader ends, more is asked for; and a reader so far behind an endless
/// step's position waits for it.
pub(in crate::flight) const LEAD: u64 = 1024 * 1024;
/// Steps that fill the blob in order stay within so many bytes of its prefix.
pub(in crate::flight) const WINDOW: u64 = 64 * 1024 * 1024;
/// Of smaller blobs nothing outlives a flight, so that they are fetched whole.
const LEAST_KEPT: u64 = 1024 * 1024;

/// What the leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::flight) enum Plan {
    /// Ask a source.
    Ask(Ask),
    /// Nothing, until something happens.
    Wait,
    /// Every byte came: compare the digest.
    Complete,
    /// No source is left that could be asked.
    GiveUp,
}

/// A request to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::flight) struct Ask {
    /// The step that it is.
    pub(in crate::flight) step: StepId,
    /// Number of the source.
    pub(in crate::flight) source: usize,
    /// `None`: the whole, without a `Range`.
    pub(in crate::flight) range: Option<Range<u64>>,
    /// Whether it makes good for one that broke.
    pub(in crate::flight) again: bool,
}

impl<E: Clone, F: Clone> State<E, F> {
    /// The next step. Call until it says to wait.
    pub(in crate::flight) fn plan(&mut self) -> Plan {
        if self.is_complete() {
            return Plan::Complete;
        }
        if self.retry.spent || !self.sources.any_usable(false) {
            if !self.steps.is_empty() {
                return Plan::Wait;
            }
            // Whoever came now would hear of a failure that is none of its own source's.
            self.abandon();
            return Plan::GiveUp;
        }
        if self.retry.paused || self.steps.len() >= MAX_STEPS {
            return Plan::Wait;
        }
        if !self.sources.any_answered() {
            return self.opening();
        }
        if self.size.is_none() || !self.sources.any_usable(true) {
            return self.anew();
        }
        if let Some(range) = self.demanded() {
            return self.ask(Some(range), false);
        }
        match self.filling() {
            Some(range) => self.ask(Some(range), true),
            None => Plan::Wait,
        }
    }

    /// The first request, or its repetition; nothing else is asked before it is answered.
    fn opening(&mut self) -> Plan {
        if !self.steps.is_empty() {
            return Plan::Wait;
        }
        let wanted = match &self.first {
            First::Part(part) => part.clone(),
            First::Start => 0..u64::MAX,
        };
        let fill = wanted.start == 0;
        if self.arrived.is_empty() && self.first == First::Start && self.parallel == 1 {
            return self.ask(None, fill);
        }
        let end = self.size.unwrap_or(u64::MAX);
        let range = self
            .gap(wanted.start..wanted.end.min(end), u64::MAX)
            .or_else(|| self.smallest_question(end));
        self.ask(range, fill)
    }

    /// All that the first client wants is there, and what is asked is whether its repository has the blob. The client is
    /// gone as soon as that is known, and all but a byte would have been sent in vain.
    fn smallest_question(&self, end: u64) -> Option<Range<u64>> {
        let gap = self.gap(0..end, u64::MAX)?;
        Some(gap.start..gap.start + 1)
    }

    /// Without a size, or a source that takes ranges, all that can be asked for is the whole. What is there is passed over.
    fn anew(&mut self) -> Plan {
        if self.steps.is_empty() {
            self.ask(None, true)
        } else {
            // It may turn out to be the whole.
            Plan::Wait
        }
    }

    fn ask(&mut self, range: Option<Range<u64>>, fill: bool) -> Plan {
        let Some(source) = self.sources.pick(range.is_some()) else {
            return Plan::Wait;
        };
        let reach = match &range {
            Some(range) => Reach::Bounded(range.end),
            None if self.arrived.is_empty() => Reach::Open,
            None => Reach::Whole,
        };
        let step = self.steps.start(Step {
            source,
            at: range.as_ref().map_or(0, |range| range.start),
            reach,
            fill,
            answered: false,
        });
        Plan::Ask(Ask {
            step,
            source,
            range,
            again: std::mem::take(&mut self.retry.broken),
        })
    }

    /// What the reader whose turn it is waits for.
    fn demanded(&mut self) -> Option<Range<u64>> {
        while let Some((reader, rest)) = self.demands.pop() {
            if let Some(range) = self.lacking(rest) {
                // It may be in want again once this is claimed.
                self.demands.enqueue(reader);
                return Some(range);
            }
        }
        None
    }

    /// What to ask for, for a reader that still wants `rest`; `None` while enough is there or on its way.
    pub(super) fn lacking(&self, rest: Range<u64>) -> Option<Range<u64>> {
        let end = rest.end.min(self.size?);
        let near = rest.start.saturating_add(LEAD);
        self.gap(rest.start..end, LEAD)
            .filter(|gap| gap.start <= near)
    }

    /// What is to be asked for next to fill the blob in order.
    fn filling(&self) -> Option<Range<u64>> {
        let size = self.size?;
        let at_work = self.steps.iter().filter(|(id, step)| {
            step.fill && self.limit(*id, step).min(size).saturating_sub(step.at) > LEAD
        });
        if !self.is_filling(size) || at_work.count() >= self.parallel {
            return None;
        }
        let window = self.arrived.run_from(0).saturating_add(WINDOW);
        self.gap(0..size, u64::MAX).filter(|gap| gap.start < window)
    }

    /// Whether a step that had come to `before` has now come so near to its end that the next in order may be begun.
    pub(in crate::flight) fn makes_way(&self, id: StepId, before: u64) -> bool {
        let (Some(step), Some(size)) = (self.steps.get(id), self.size) else {
            return false;
        };
        let end = self.limit(id, step).min(size);
        let is_far = |at| end.saturating_sub(at) > LEAD;
        step.fill && is_far(before) && !is_far(step.at)
    }

    /// Whether the blob is filled in order, or only what readers wait for is fetched.
    fn is_filling(&self, size: u64) -> bool {
        self.readers.any_full || self.is_worth_finishing(size)
    }

    /// Whether the rest is fetched although nobody wants it: half is there, or what is there would be lost with the flight
    /// and asked for again by the next reader of a part.
    pub(super) fn is_worth_finishing(&self, size: u64) -> bool {
        size < LEAST_KEPT || self.arrived.len() >= size.div_ceil(2)
    }

    /// The first bytes of `within` that are neither there nor on their way, as many as one step asks for. `patience` is how
    /// far behind an endless step's position a byte may be to count as on its way.
    fn gap(&self, within: Range<u64>, patience: u64) -> Option<Range<u64>> {
        let mut start = within.start;
        while start < within.end {
            let Some(end) = self.coming(start, patience) else {
                let most = start.saturating_add(STEP).min(within.end);
                return Some(start..most.min(self.next_taken(start)));
            };
            start = end;
        }
        None
    }

    /// If the byte at `position` is there or on its way: how far that goes on.
    fn coming(&self, position: u64, patience: u64) -> Option<u64> {
        let there = self.arrived.run_from(position);
        if there > position {
            return Some(there);
        }
        let brings = |(id, step): (StepId, &Step)| {
            let limit = self.limit(id, step);
            let is_near = !step.is_endless() || position.saturating_sub(step.at) <= patience;
            (step.at <= position && position < limit && is_near).then_some(limit)
        };
        self.steps.iter().filter_map(brings).max()
    }

    /// Where the next bytes begin that are there or claimed, from `position` on.
    fn next_taken(&self, position: u64) -> u64 {
        let claims = self.steps.iter().map(|(_, step)| step.at);
        claims
            .filter(|at| *at > position)
            .chain(self.arrived.next_start(position))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// How many bytes from `position` on have not arrived, up to the next that has.
    pub(super) fn gap_at(&self, position: u64) -> u64 {
        self.arrived.next_start(position).unwrap_or(u64::MAX) - position
    }

    /// How far a step reads, as things stand.
    fn limit(&self, id: StepId, step: &Step) -> u64 {
        match step.reach {
            Reach::Bounded(end) => end,
            Reach::Whole => u64::MAX,
            Reach::Open => self.open_limit(id, step).0,
        }
    }

    /// How far a step reads that goes on until it meets something; and whether what it meets is a claim that is not
    /// certain yet, since nobody knows whether the source takes ranges.
    pub(super) fn open_limit(&self, id: StepId, step: &Step) -> (u64, bool) {
        let there = match self.arrived.run_from(step.at) {
            run if run > step.at => step.at,
            _ => self.arrived.next_start(step.at).unwrap_or(u64::MAX),
        };
        let claim = self
            .steps
            .iter()
            .filter(|(other, claim)| *other != id && claim.at >= step.at)
            .min_by_key(|(_, claim)| claim.at);
        match claim {
            Some((_, claim)) if claim.at <= there => {
                let is_open =
                    !claim.answered && self.sources.ranges(claim.source) == Ranges::Unknown;
                (claim.at, is_open)
            }
            _ => (there, false),
        }
    }
}

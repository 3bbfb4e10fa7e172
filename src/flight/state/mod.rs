//! The state of one flight, and the rules that move it. Pure: no tokio, no I/O, no clock.
//!
//! The leader tells it what happened and asks it what to do next ([`State::plan`]); readers tell it what they wait for and
//! ask it how far they may read. Bytes are *arrived* once a step has brought them, so that nobody asks for them again, and
//! *present* once they are written, so that readers can have them.

use std::ops::Range;

use super::backoff::Backoff;
use super::intervals::Intervals;

mod demands;
mod plan;
mod reading;
mod retry;
mod sources;
mod steps;

pub(super) use demands::ReaderId;
pub(super) use plan::{Ask, Plan};
pub(super) use reading::{Abandoned, Admission, Readable};
#[cfg(test)]
pub(super) use retry::PROGRESS;
pub(super) use steps::StepId;

use demands::Demands;
use reading::Readers;
use retry::Retry;
use sources::{Ranges, Sources};
use steps::{Reach, Step, Steps};

/// The last bytes of a body are kept from readers of the whole until the digest is known to match.
pub(super) const TAIL: u64 = 64 * 1024;
/// Most bytes that a step asks for, where it can ask for a range.
pub(super) const STEP: u64 = 8 * 1024 * 1024;
/// Steps of one flight at once.
pub(super) const MAX_STEPS: usize = 16;
/// State of one fetch. `E` is why a source failed, `F` why the flight did.
#[derive(Debug)]
pub(super) struct State<E, F> {
    size: Option<u64>,
    arrived: Intervals,
    present: Intervals,
    /// Bytes of an earlier fetch are among them: nobody knows who sent those.
    has_resumed: bool,
    sources: Sources<E>,
    steps: Steps,
    demands: Demands,
    readers: Readers,
    first: First,
    parallel: usize,
    retry: Retry,
    phase: Phase<F>,
}

/// What a flight's first request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum First {
    /// The blob from its start.
    Start,
    /// This part, for whose client the flight is begun.
    Part(Range<u64>),
}

#[derive(Debug)]
enum Phase<F> {
    /// Bytes are awaited or arriving.
    Fetching,
    /// All bytes came; the digest is being compared. Too late to abandon it.
    Settled,
    /// All bytes are there and match the digest.
    Verified,
    /// No more is asked for: nobody wants it any more, or no source is left. Whoever comes now begins anew.
    Ending,
    /// No more bytes will come.
    Failed(F),
}

/// What an answer's head means for its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// Its bytes are wanted, from the position where they begin.
    Wanted,
    /// The source ignored the range, and another step brings the same bytes already. The step is over.
    Redundant,
}

/// What to do with the first bytes of a piece that a step brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// So many are new, and count as arrived from now on.
    Keep(u64),
    /// So many are there.
    Skip(u64),
    /// Wait: whether another step brings them turns out with the head of its answer.
    Wait,
    /// The step meets what is there or claimed: it is over.
    Stop,
}

/// An answer that does not fit what is known of the blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    /// Two answers tell different sizes.
    #[error("the blob was {known} bytes long before and is {told} now")]
    Size {
        /// The size so far.
        known: u64,
        /// The size told.
        told: u64,
    },
    /// More bytes than the size.
    #[error("more than the announced {0} bytes came")]
    TooLong(u64),
    /// A body without a length ended before a byte that had come.
    #[error("the body ended at {end}, before bytes that had come")]
    TooShort {
        /// The position where it ended.
        end: u64,
    },
}

impl<E: Clone, F: Clone> State<E, F> {
    /// A flight that will ask `source`, `parallel` steps at once where it fills the blob in order.
    pub(super) fn new(source: &str, first: First, parallel: usize) -> Self {
        Self {
            size: None,
            arrived: Intervals::default(),
            present: Intervals::default(),
            has_resumed: false,
            sources: Sources::new(source),
            steps: Steps::default(),
            demands: Demands::default(),
            readers: Readers::default(),
            first,
            parallel: parallel.max(1),
            retry: Retry::default(),
            phase: Phase::Fetching,
        }
    }

    /// Adds a source unless it is there already. Returns whether it was new. A new one is worth new tries.
    pub(super) fn add_source(&mut self, key: &str) -> bool {
        let is_new = self.sources.add(key);
        if is_new {
            self.retry.renew(self.patience());
        }
        is_new
    }

    /// Of several sources that may be wrong, one alone is to bring the bytes, so that it is known whose they are.
    pub(super) fn take_from_one(&mut self) {
        self.sources.take_from_one();
    }

    /// Whether the bytes of one source alone are taken.
    pub(super) fn takes_from_one(&self) -> bool {
        self.sources.is_strict()
    }

    /// Bytes that an earlier fetch left, of a blob that it took to have `len` bytes.
    pub(super) fn resumed(&mut self, len: u64, present: Vec<Range<u64>>) {
        self.size = Some(len);
        self.has_resumed = true;
        for range in present {
            let range = range.start..range.end.min(len);
            self.arrived.insert(range.clone());
            self.present.insert(range);
        }
    }

    /// What an earlier fetch left turns out to be of no use. Only before any client was admitted.
    pub(super) fn start_over(&mut self) {
        self.size = None;
        self.has_resumed = false;
        self.arrived = Intervals::default();
        self.present = Intervals::default();
    }

    /// The head of a step's answer: its body is the part of the blob that begins at `part`, or all of it, and the blob has
    /// `total` bytes.
    pub(super) fn answered(
        &mut self,
        id: StepId,
        part: Option<u64>,
        total: Option<u64>,
    ) -> Result<Answered, Mismatch> {
        if let (Some(known), Some(told)) = (self.size, total)
            && known != told
        {
            return Err(Mismatch::Size { known, told });
        }
        self.size = self.size.or(total);
        let others_endless = self.steps.has_endless(id);
        let Some(step) = self.steps.get_mut(id) else {
            return Ok(Answered::Redundant);
        };
        step.answered = true;
        let (source, start) = (step.source, part.unwrap_or(0));
        let is_ignored = match step.reach {
            // All of a blob that ends within what was asked for tells nothing.
            Reach::Bounded(end) => {
                start != step.at || (part.is_none() && total.is_none_or(|total| total > end))
            }
            Reach::Open | Reach::Whole => false,
        };
        if is_ignored {
            self.sources.set_ranges(source, Ranges::Ignored);
            step.at = start;
            step.reach = Reach::Whole;
        } else if part.is_some() {
            self.sources.set_ranges(source, Ranges::Taken);
        }
        let is_first = !self.sources.any_answered();
        self.sources.set_answered(source);
        if is_first {
            self.retry.renew(Backoff::proven());
        }
        if is_ignored && others_endless {
            self.close_step(id);
            return Ok(Answered::Redundant);
        }
        Ok(Answered::Wanted)
    }

    /// A step brought `len` bytes, which belong where it had come to. Says what to do with the first of them.
    pub(super) fn take(&mut self, id: StepId, len: u64) -> Result<Take, Mismatch> {
        let Some(step) = self.steps.get(id) else {
            return Ok(Take::Stop);
        };
        let (at, source) = (step.at, step.source);
        if !self.sources.may_bring(source) {
            return Ok(Take::Stop);
        }
        if let Some(size) = self.size
            && at.checked_add(len).is_none_or(|end| end > size)
        {
            return Err(Mismatch::TooLong(size));
        }
        let there = self.arrived.run_from(at) - at;
        let verdict = match step.reach {
            Reach::Whole if there > 0 => Take::Skip(len.min(there)),
            Reach::Whole => Take::Keep(len.min(self.gap_at(at))),
            _ if there > 0 => Take::Stop,
            Reach::Bounded(end) if at >= end => Take::Stop,
            Reach::Bounded(end) => Take::Keep(len.min(end - at).min(self.gap_at(at))),
            Reach::Open => match self.open_limit(id, step) {
                (limit, _) if limit > at => Take::Keep(len.min(limit - at)),
                (_, true) => Take::Wait,
                (_, false) => Take::Stop,
            },
        };
        if let Take::Keep(count) | Take::Skip(count) = verdict
            && let Some(step) = self.steps.get_mut(id)
        {
            step.at += count;
        }
        if let Take::Keep(count) = verdict {
            self.arrived.insert(at..at + count);
            self.sources.brought(source);
            self.progressed(count);
        }
        Ok(verdict)
    }

    /// Where a step's next byte belongs.
    pub(super) fn position(&self, id: StepId) -> u64 {
        self.steps.get(id).map_or(0, |step| step.at)
    }

    /// Number of the source that a step asked.
    pub(super) fn source_of(&self, id: StepId) -> Option<usize> {
        self.steps.get(id).map(|step| step.source)
    }

    /// A step's body ended cleanly. Returns whether it brought all that it was to bring; if not, the caller tells why it
    /// failed.
    pub(super) fn ended(&mut self, id: StepId) -> Result<bool, Mismatch> {
        let Some(step) = self.steps.get(id) else {
            return Ok(true);
        };
        let end = step.at;
        let is_whole = match (step.reach, self.size) {
            (Reach::Bounded(bound), Some(size)) => end >= bound.min(size),
            (_, Some(size)) => end >= size,
            // Only an answer that holds the whole tells no size.
            (_, None) => {
                if self.arrived.end() > end {
                    return Err(Mismatch::TooShort { end });
                }
                self.size = Some(end);
                true
            }
        };
        if is_whole {
            self.close_step(id);
        }
        Ok(is_whole)
    }

    /// A step is over, and what it had claimed is free.
    pub(super) fn close_step(&mut self, id: StepId) -> Option<usize> {
        let step = self.steps.end(id)?;
        self.demands.enqueue_all();
        Some(step.source)
    }

    /// Bytes at `range` can be read from now on. Returns how many are new.
    pub(super) fn landed(&mut self, range: Range<u64>) -> u64 {
        self.present.insert(range)
    }

    /// The size, if known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// End of the run of bytes from `position` on that can be read; `position` itself where its byte cannot.
    pub(super) fn present_from(&self, position: u64) -> u64 {
        self.present.run_from(position)
    }

    /// The bytes that can be read.
    pub(super) fn present(&self) -> &Intervals {
        &self.present
    }

    fn is_complete(&self) -> bool {
        self.size
            .is_some_and(|size| self.arrived.run_from(0) >= size)
    }

    /// All bytes came. Fails when the flight was abandoned before.
    pub(super) fn settle(&mut self) -> bool {
        if matches!(self.phase, Phase::Fetching) {
            self.phase = Phase::Settled;
        }
        matches!(self.phase, Phase::Settled)
    }

    /// The digest matched.
    pub(super) fn verified(&mut self) {
        if matches!(self.phase, Phase::Fetching | Phase::Settled) {
            self.phase = Phase::Verified;
        }
    }

    /// No more bytes will come. A flight that was verified stays so: its readers have all they need.
    pub(super) fn failed(&mut self, why: F) {
        if !matches!(self.phase, Phase::Verified | Phase::Failed(_)) {
            self.phase = Phase::Failed(why);
            self.sources.close();
        }
    }

    /// As [`State::failed`], and what came is not to be trusted: nobody reads on.
    pub(super) fn discredited(&mut self, why: F) {
        if !self.is_verified() {
            self.present = Intervals::default();
        }
        self.failed(why);
    }

    /// Whether the digest matched.
    pub(super) fn is_verified(&self) -> bool {
        matches!(self.phase, Phase::Verified)
    }

    /// Why the flight failed, if it did.
    pub(super) fn failure(&self) -> Option<&F> {
        match &self.phase {
            Phase::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// Whether it ends without the blob, and has not failed yet.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending)
    }

    /// The fetch stops, for want of readers or sources: it is no flight to join.
    pub(super) fn abandon(&mut self) {
        if matches!(self.phase, Phase::Fetching) {
            self.phase = Phase::Ending;
        }
    }

    /// See [`Sources::vouches`]. With all bytes there nobody is asked any more.
    pub(super) fn vouches(&self, key: &str) -> bool {
        if self.is_verified() {
            self.sources.has_answered(key)
        } else {
            self.sources.vouches(key)
        }
    }

    /// Whether this source was, or will be, asked.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.sources.knows(key)
    }

    /// The sources that answered for the blob.
    pub(super) fn answered_sources(&self) -> Vec<usize> {
        self.sources.answered()
    }

    /// The sources whose bytes were taken.
    pub(super) fn bringers(&self) -> Vec<usize> {
        self.sources.bringers()
    }

    /// Whether bytes of an earlier fetch are among those of the bringers.
    pub(super) fn has_resumed(&self) -> bool {
        self.has_resumed
    }

    /// Whether any source answered for the blob.
    pub(super) fn has_answer(&self) -> bool {
        self.sources.any_answered()
    }

    /// Whether a source is not asked any more, or nobody is.
    pub(super) fn is_given_up(&self, source: usize) -> bool {
        self.retry.spent || self.sources.is_out(source)
    }

    /// The failure of a source that tells most.
    pub(super) fn most_telling(&self) -> Option<E> {
        self.sources.most_telling()
    }

    /// The bytes that need not be asked for.
    #[cfg(test)]
    pub(super) fn arrived(&self) -> &Intervals {
        &self.arrived
    }

    /// The steps under way.
    #[cfg(test)]
    pub(super) fn steps(&self) -> Vec<StepId> {
        self.steps.iter().map(|(id, _)| id).collect()
    }
}

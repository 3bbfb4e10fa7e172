//! The requests of a flight that are under way, each with its claim on the bytes it is to bring. Pure.
//!
//! A claim is what a step has not brought yet; it goes with the step, so what a step did not bring is free again.

use std::collections::BTreeMap;

/// Tells a flight's steps apart, over its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::flight) struct StepId(u64);

/// A request under way, or its answer.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The source that was asked.
    pub(super) source: usize,
    /// Where its next byte belongs.
    pub(super) at: u64,
    /// How far it reads.
    pub(super) reach: Reach,
    /// Whether it fills the blob in order, rather than bring what a reader far ahead waits for.
    pub(super) fill: bool,
    /// Whether the head of its answer is there.
    pub(super) answered: bool,
}

/// How far a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Up to this position: the range it asked for.
    Bounded(u64),
    /// On and on, until it meets what is there or claimed by another.
    Open,
    /// To the end, whatever it meets: its source takes no ranges, so what is there is passed over.
    Whole,
}

impl Step {
    /// Whether it holds an answer to a request without a range.
    pub(super) fn is_endless(&self) -> bool {
        !matches!(self.reach, Reach::Bounded(_))
    }
}

/// All steps of a flight that are under way.
#[derive(Debug, Default)]
pub(super) struct Steps {
    running: BTreeMap<StepId, Step>,
    started: u64,
}

impl Steps {
    pub(super) fn start(&mut self, step: Step) -> StepId {
        let id = StepId(self.started);
        self.started += 1;
        self.running.insert(id, step);
        id
    }

    pub(super) fn get(&self, id: StepId) -> Option<&Step> {
        self.running.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StepId) -> Option<&mut Step> {
        self.running.get_mut(&id)
    }

    pub(super) fn end(&mut self, id: StepId) -> Option<Step> {
        self.running.remove(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.running.iter().map(|(id, step)| (*id, step))
    }

    /// Whether a step other than `but` reads without an end.
    pub(super) fn has_endless(&self, but: StepId) -> bool {
        self.iter().any(|(id, step)| id != but && step.is_endless())
    }
}

//! Who may read, how far, and what a fetch is worth that nobody reads. Pure.

use std::ops::Range;

use super::{Phase, ReaderId, State, TAIL};

/// How far a reader may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::flight) enum Readable<F> {
    /// Up to this position, which is beyond its own.
    Upto(u64),
    /// Not yet.
    Wait,
    /// The blob ends at the reader's position.
    End,
    /// Never.
    Failed(F),
}

/// Whether a reader may have what this flight fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::flight) enum Admission<E, F> {
    /// Yes, and the size is known, or known to be unknown.
    Admitted(Option<u64>),
    /// Not decided yet.
    Wait,
    /// The reader's own source does not have it, and nothing else proves its right.
    Refused(E),
    /// The flight failed.
    Failed(F),
    /// All bytes are there, and nobody will be asked who could tell.
    Unproven,
}

/// What becomes of a flight that its last reader has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::flight) enum Abandoned {
    /// It is still read.
    NotYet,
    /// Worth finishing unattended.
    Finish,
    /// Not worth it.
    Stop,
}

/// Who reads.
#[derive(Debug, Default)]
pub(super) struct Readers {
    now: usize,
    pub(super) any_full: bool,
}

impl<E: Clone, F: Clone> State<E, F> {
    /// A reader came.
    pub(in crate::flight) fn reader_joined(&mut self, full: bool) {
        self.readers.now += 1;
        self.readers.any_full |= full;
    }

    /// A reader of a part begins to read.
    pub(in crate::flight) fn reader_wants(&mut self, range: Range<u64>) -> ReaderId {
        self.demands.add(range)
    }

    /// A reader of a part has come to `position`. Returns whether something has to be asked for it.
    pub(in crate::flight) fn reader_at(&mut self, id: ReaderId, position: u64) -> bool {
        self.demands
            .moved(id, position)
            .is_some_and(|rest| self.lacking(rest).is_some() && self.demands.enqueue(id))
    }

    /// A reader of a part is done.
    pub(in crate::flight) fn reader_done(&mut self, id: ReaderId) {
        self.demands.remove(id);
    }

    /// A reader left. A flight that nobody reads goes on if somebody wanted all of it, half is there, or it
    /// is small.
    pub(in crate::flight) fn reader_left(&mut self) -> Abandoned {
        self.readers.now = self.readers.now.saturating_sub(1);
        if self.readers.now > 0 || !matches!(self.phase, Phase::Fetching) {
            return Abandoned::NotYet;
        }
        if self.readers.any_full || self.size.is_some_and(|size| self.is_worth_finishing(size)) {
            Abandoned::Finish
        } else {
            Abandoned::Stop
        }
    }

    /// Whether a client of source `key` may read, `proven` telling that its repository has the blob for certain.
    ///
    /// A blob without bytes has no tail to hold back, so nobody is admitted to it before it is verified.
    pub(in crate::flight) fn admission(&self, key: &str, proven: bool) -> Admission<E, F> {
        let refusal = self.sources.refusal(key).filter(|_| !proven);
        if let Phase::Failed(why) = &self.phase {
            return match refusal {
                Some(error) => Admission::Refused(error),
                None => Admission::Failed(why.clone()),
            };
        }
        if let Some(error) = refusal {
            return Admission::Refused(error);
        }
        if self.is_verified() && !proven && !self.sources.has_answered(key) {
            return Admission::Unproven;
        }
        let is_entitled = if proven {
            // Of what an earlier fetch left complete, the digest tells as much as an answer.
            self.sources.any_answered() || self.is_verified()
        } else {
            self.sources.has_answered(key)
        };
        let is_empty_unverified = self.size == Some(0) && !self.is_verified();
        if is_entitled && !is_empty_unverified {
            Admission::Admitted(self.size)
        } else {
            Admission::Wait
        }
    }

    /// How far a reader at `position` may go. `whole` tells that it gets every byte, so that the tail is kept from it until
    /// the digest matches. Of a flight that failed a reader of a part still gets what is there, for that may be all it wants.
    pub(in crate::flight) fn readable(&self, position: u64, whole: bool) -> Readable<F> {
        if self.is_verified() && self.size.is_some_and(|size| position >= size) {
            return Readable::End;
        }
        let landed = self.present.run_from(position);
        if let Phase::Failed(why) = &self.phase
            && (whole || landed <= position)
        {
            return Readable::Failed(why.clone());
        }
        let limit = if self.is_verified() || !whole {
            landed
        } else {
            // Without a size the tail is the last of what has come so far.
            let end = self.size.unwrap_or(landed);
            landed.min(end.saturating_sub(TAIL))
        };
        if limit > position {
            Readable::Upto(limit)
        } else {
            Readable::Wait
        }
    }
}

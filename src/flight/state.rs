//! The state of one flight, and the rules that move it. Pure: no tokio, no I/O, no clock.
//!
//! The leader tells it what happened and asks it what to do next; readers ask it how far they may read.

use std::ops::Range;

use super::intervals::Intervals;

/// The last bytes of a body are kept from readers of the whole until the digest is known to match.
pub(super) const TAIL: u64 = 64 * 1024;

/// State of one fetch. `E` is why a source failed, `F` why the flight did.
#[derive(Debug)]
pub(super) struct State<E, F> {
    size: Option<u64>,
    present: Intervals,
    sources: Vec<Standing<E>>,
    phase: Phase<F>,
    readers: Readers,
}

#[derive(Debug)]
struct Standing<E> {
    key: String,
    state: SourceState<E>,
}

#[derive(Debug)]
enum SourceState<E> {
    /// Not asked yet.
    Untried,
    /// Its head is awaited.
    Asked,
    /// It answered for the blob: what its repository has, its clients may read.
    Answered,
    /// It answered, and later broke off.
    Broken(E),
    /// It did not answer for the blob.
    Refused(E),
}

#[derive(Debug)]
enum Phase<F> {
    /// Bytes are awaited or arriving.
    Fetching,
    /// All bytes are there and match the digest.
    Verified,
    /// No more bytes will come.
    Failed(F),
}

#[derive(Debug, Default)]
struct Readers {
    now: usize,
    any_full: bool,
}

/// What the leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask this source for this range; `None`: for the whole, without a `Range`.
    Ask(usize, Option<Range<u64>>),
    /// Every byte is there: compare the digest.
    Verify,
    /// No source is left. The number of the one whose failure tells most.
    GiveUp(usize),
}

/// How far a reader may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readable<F> {
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
pub(super) enum Admission<E, F> {
    /// Yes, and the size is known, or known to be unknown.
    Admitted(Option<u64>),
    /// Not decided yet.
    Wait,
    /// The reader's own source does not have it, and nothing else proves its right.
    Refused(E),
    /// The flight failed.
    Failed(F),
}

/// What becomes of a flight that its last reader has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It is still read.
    NotYet,
    /// Worth finishing unattended.
    Finish,
    /// Not worth it.
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
    /// Fewer bytes than the size.
    #[error("{came} of {size} bytes came")]
    TooShort {
        /// The position where they ended.
        came: u64,
        /// The size.
        size: u64,
    },
}

impl<E: Clone, F: Clone> State<E, F> {
    /// A flight that will ask `source`.
    pub(super) fn new(source: &str) -> Self {
        let mut state = Self {
            size: None,
            present: Intervals::default(),
            sources: Vec::new(),
            phase: Phase::Fetching,
            readers: Readers::default(),
        };
        state.add_source(source);
        state
    }

    /// Adds a source unless it is there already. Returns whether it was new.
    pub(super) fn add_source(&mut self, key: &str) -> bool {
        if self.source(key).is_some() {
            return false;
        }
        self.sources.push(Standing {
            key: key.to_owned(),
            state: SourceState::Untried,
        });
        true
    }

    fn source(&self, key: &str) -> Option<&Standing<E>> {
        self.sources.iter().find(|source| source.key == key)
    }

    /// Whether a client of this source's repository may join without a proof: the source's own answer is, or is sure to
    /// be, the proof. Of the sources not yet asked only the first is sure to be: the others are for when it fails.
    pub(super) fn vouches(&self, key: &str) -> bool {
        let position = self.sources.iter().position(|source| source.key == key);
        position.is_some_and(|index| match self.sources[index].state {
            SourceState::Untried => index == 0,
            SourceState::Refused(_) => false,
            SourceState::Asked | SourceState::Answered | SourceState::Broken(_) => true,
        })
    }

    /// Whether this source was, or will be, asked.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.source(key).is_some()
    }

    /// What to do next.
    pub(super) fn next_step(&mut self) -> Step {
        if self.is_complete() {
            return Step::Verify;
        }
        let position = self
            .sources
            .iter()
            .position(|s| matches!(s.state, SourceState::Untried));
        let Some(index) = position else {
            return Step::GiveUp(self.most_telling());
        };
        self.sources[index].state = SourceState::Asked;
        Step::Ask(index, self.wanted())
    }

    /// The range to ask for: everything, as long as nothing is there, else the first gap.
    fn wanted(&self) -> Option<Range<u64>> {
        if self.present.is_empty() {
            return None;
        }
        match self.size {
            Some(size) => self.present.first_missing(size),
            // Without a size no range can be bounded; the whole is asked again, and what is there is skipped.
            None => None,
        }
    }

    /// A source that broke off says more than one that never had the blob.
    fn most_telling(&self) -> usize {
        self.sources
            .iter()
            .position(|source| matches!(source.state, SourceState::Broken(_)))
            .unwrap_or(0)
    }

    /// Why source `index` failed.
    pub(super) fn failure_of(&self, index: usize) -> Option<E> {
        match &self.sources.get(index)?.state {
            SourceState::Broken(error) | SourceState::Refused(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Source `index` answered for the blob and told its size, or not.
    pub(super) fn answered(&mut self, index: usize, total: Option<u64>) -> Result<(), Mismatch> {
        if let (Some(known), Some(told)) = (self.size, total)
            && known != told
        {
            return Err(Mismatch::Size { known, told });
        }
        self.size = self.size.or(total);
        if let Some(source) = self.sources.get_mut(index) {
            source.state = SourceState::Answered;
        }
        Ok(())
    }

    /// Source `index` failed, before its head or after it.
    pub(super) fn source_failed(&mut self, index: usize, error: E) {
        if let Some(source) = self.sources.get_mut(index) {
            source.state = match source.state {
                SourceState::Answered => SourceState::Broken(error),
                _ => SourceState::Refused(error),
            };
        }
    }

    /// The sources that answered for the blob.
    pub(super) fn answered_sources(&self) -> Vec<usize> {
        let has = |state: &SourceState<E>| {
            matches!(state, SourceState::Answered | SourceState::Broken(_))
        };
        (0..self.sources.len())
            .filter(|&index| has(&self.sources[index].state))
            .collect()
    }

    /// Whether bytes at `range` fit the size.
    pub(super) fn fits(&self, range: &Range<u64>) -> Result<(), Mismatch> {
        match self.size {
            Some(size) if range.end > size => Err(Mismatch::TooLong(size)),
            _ => Ok(()),
        }
    }

    /// Bytes at `range` can be read from now on. Returns how many are new.
    pub(super) fn landed(&mut self, range: Range<u64>) -> u64 {
        self.present.insert(range)
    }

    /// A body ended cleanly at `position`: that is the size, where none was told.
    pub(super) fn ended(&mut self, position: u64) -> Result<(), Mismatch> {
        match self.size {
            None => {
                self.size = Some(position);
                Ok(())
            }
            Some(size) if position < size => Err(Mismatch::TooShort {
                came: position,
                size,
            }),
            Some(_) => Ok(()),
        }
    }

    /// The size, if known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// End of the run of bytes from the start.
    pub(super) fn frontier(&self) -> u64 {
        self.present.run_from(0)
    }

    fn is_complete(&self) -> bool {
        self.size.is_some_and(|size| self.frontier() >= size)
    }

    /// The digest matched.
    pub(super) fn verified(&mut self) {
        if matches!(self.phase, Phase::Fetching) {
            self.phase = Phase::Verified;
        }
    }

    /// No more bytes will come. A flight that was verified stays so: its readers have all they need.
    pub(super) fn failed(&mut self, why: F) {
        if matches!(self.phase, Phase::Fetching) {
            self.phase = Phase::Failed(why);
        }
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

    /// A reader came.
    pub(super) fn reader_joined(&mut self, full: bool) {
        self.readers.now += 1;
        self.readers.any_full |= full;
    }

    /// A reader left. A flight that nobody reads goes on if somebody wanted all of it, or half is there.
    pub(super) fn reader_left(&mut self) -> Abandoned {
        self.readers.now = self.readers.now.saturating_sub(1);
        if self.readers.now > 0 || !matches!(self.phase, Phase::Fetching) {
            return Abandoned::NotYet;
        }
        let half_there = self
            .size
            .is_some_and(|size| self.present.len() >= size.div_ceil(2));
        if self.readers.any_full || half_there {
            Abandoned::Finish
        } else {
            Abandoned::Stop
        }
    }

    /// Whether a client of source `key` may read, `proven` telling that its repository has the blob for certain.
    ///
    /// A blob without bytes has no tail to hold back, so nobody is admitted to it before it is verified.
    pub(super) fn admission(&self, key: &str, proven: bool) -> Admission<E, F> {
        if let Phase::Failed(why) = &self.phase {
            return match self.refusal(key) {
                Some(error) if !proven => Admission::Refused(error),
                _ => Admission::Failed(why.clone()),
            };
        }
        let has_answered = |source: &Standing<E>| {
            matches!(source.state, SourceState::Answered | SourceState::Broken(_))
        };
        let entitled = if proven {
            self.sources.iter().any(has_answered)
        } else if let Some(error) = self.refusal(key) {
            return Admission::Refused(error);
        } else {
            self.source(key).is_some_and(has_answered)
        };
        let empty_unverified = self.size == Some(0) && !self.is_verified();
        if entitled && !empty_unverified {
            Admission::Admitted(self.size)
        } else {
            Admission::Wait
        }
    }

    fn refusal(&self, key: &str) -> Option<E> {
        match &self.source(key)?.state {
            SourceState::Refused(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// How far a reader at `position` may go. `whole` tells that it gets every byte, so that the tail is kept from it until
    /// the digest matches.
    pub(super) fn readable(&self, position: u64, whole: bool) -> Readable<F> {
        if self.is_verified() && self.size.is_some_and(|size| position >= size) {
            return Readable::End;
        }
        let landed = self.present.run_from(position);
        let limit = if self.is_verified() || !whole {
            landed
        } else {
            // Without a size the tail is the last of what has come so far.
            let end = self.size.unwrap_or(landed);
            landed.min(end.saturating_sub(TAIL))
        };
        if let Phase::Failed(why) = &self.phase {
            return Readable::Failed(why.clone());
        }
        if limit > position {
            Readable::Upto(limit)
        } else {
            Readable::Wait
        }
    }
}

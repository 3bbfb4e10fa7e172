//! Where a flight's bytes may be had from, and how each source has stood the test so far. Pure.

use crate::flight::ports::Remedy;

/// The sources of a flight, numbered in the order in which they came.
#[derive(Debug)]
pub(super) struct Sources<E> {
    all: Vec<Standing<E>>,
    /// The one to ask next, if it can.
    current: usize,
    /// Whether the bytes of one alone are taken.
    is_strict: bool,
}

#[derive(Debug)]
struct Standing<E> {
    key: String,
    /// Whether it has answered for the blob: what its repository has, its clients may read.
    answered: bool,
    /// Whether bytes of it were taken.
    has_brought: bool,
    ranges: Ranges,
    /// Whether it was asked again after a denial, which may be an expired signature or token, since the last progress.
    renewed: bool,
    health: Health<E>,
}

#[derive(Debug)]
enum Health<E> {
    Untried,
    /// Asked, and nothing is known against it.
    Good,
    /// Its last request failed; another may do better.
    Failing(E),
    /// Not to be asked again.
    Out(E),
}

/// Whether a source takes ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranges {
    Unknown,
    Taken,
    Ignored,
}

impl<E: Clone> Sources<E> {
    pub(super) fn new(first: &str) -> Self {
        let mut sources = Self {
            all: Vec::new(),
            current: 0,
            is_strict: false,
        };
        sources.add(first);
        sources
    }

    /// Adds a source unless it is there already. Returns whether it was new.
    pub(super) fn add(&mut self, key: &str) -> bool {
        if self.get(key).is_some() {
            return false;
        }
        self.all.push(Standing {
            key: key.to_owned(),
            answered: false,
            has_brought: false,
            ranges: Ranges::Unknown,
            renewed: false,
            health: Health::Untried,
        });
        true
    }

    fn get(&self, key: &str) -> Option<&Standing<E>> {
        self.all.iter().find(|source| source.key == key)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether this source was, or will be, asked.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether a client of this source's repository may join without a proof: the source's own answer is, or is sure to
    /// be, the proof. Of the sources not yet asked only the first is sure to be: the others are for when it fails.
    pub(super) fn vouches(&self, key: &str) -> bool {
        let Some(index) = self.all.iter().position(|source| source.key == key) else {
            return false;
        };
        let source = &self.all[index];
        source.answered
            || match source.health {
                Health::Untried => index == 0,
                Health::Good => true,
                // With another source's bytes at hand there is no need to ask it again.
                Health::Failing(_) => !self.any_answered(),
                Health::Out(_) => false,
            }
    }

    /// Whether this source has answered for the blob.
    pub(super) fn has_answered(&self, key: &str) -> bool {
        self.get(key).is_some_and(|source| source.answered)
    }

    pub(super) fn any_answered(&self) -> bool {
        self.all.iter().any(|source| source.answered)
    }

    /// The sources that have answered for the blob.
    pub(super) fn answered(&self) -> Vec<usize> {
        (0..self.all.len())
            .filter(|&index| self.all[index].answered)
            .collect()
    }

    /// Why this source's clients get nothing by its word; `None` while it has answered or still may.
    pub(super) fn refusal(&self, key: &str) -> Option<E> {
        let source = self.get(key).filter(|source| !source.answered)?;
        match &source.health {
            Health::Out(error) => Some(error.clone()),
            Health::Failing(error) if self.any_answered() => Some(error.clone()),
            _ => None,
        }
    }

    /// Whether any source may still be asked, for a range if `ranged`.
    pub(super) fn any_usable(&self, ranged: bool) -> bool {
        (0..self.all.len()).any(|index| self.is_usable(index, ranged))
    }

    fn is_usable(&self, index: usize, ranged: bool) -> bool {
        let is_able = !ranged || self.ranges(index) != Ranges::Ignored;
        is_able && !self.is_out(index) && self.may_bring(index)
    }

    /// From the first byte on, no other source is asked than the one that brought it.
    pub(super) fn take_from_one(&mut self) {
        self.is_strict = true;
    }

    /// Whether the bytes of one alone are taken.
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Whether the bytes of this source may be taken.
    pub(super) fn may_bring(&self, index: usize) -> bool {
        !self.is_strict || self.bringers().iter().all(|&bringer| bringer == index)
    }

    /// Notes that bytes of this source were taken.
    pub(super) fn brought(&mut self, index: usize) {
        if let Some(source) = self.all.get_mut(index) {
            source.has_brought = true;
        }
    }

    /// The sources whose bytes were taken.
    pub(super) fn bringers(&self) -> Vec<usize> {
        (0..self.all.len())
            .filter(|&index| self.all[index].has_brought)
            .collect()
    }

    /// Whether this source is not asked any more.
    pub(super) fn is_out(&self, index: usize) -> bool {
        let source = self.all.get(index);
        source.is_none_or(|source| matches!(source.health, Health::Out(_)))
    }

    /// The next source to ask, for a range if `ranged`.
    pub(super) fn pick(&mut self, ranged: bool) -> Option<usize> {
        let count = self.all.len();
        let index = (0..count)
            .map(|turn| (self.current + turn) % count)
            .find(|&index| self.is_usable(index, ranged))?;
        self.current = index;
        let source = &mut self.all[index];
        if matches!(source.health, Health::Untried) {
            source.health = Health::Good;
        }
        Some(index)
    }

    pub(super) fn set_answered(&mut self, index: usize) {
        if let Some(source) = self.all.get_mut(index) {
            source.answered = true;
            source.health = Health::Good;
        }
    }

    pub(super) fn ranges(&self, index: usize) -> Ranges {
        self.all
            .get(index)
            .map_or(Ranges::Unknown, |source| source.ranges)
    }

    pub(super) fn set_ranges(&mut self, index: usize, ranges: Ranges) {
        if let Some(source) = self.all.get_mut(index) {
            source.ranges = ranges;
        }
    }

    /// Notes that a request failed; the next one goes to another source, if there is one.
    pub(super) fn failed(&mut self, index: usize, error: E, remedy: Remedy) {
        let count = self.all.len();
        let Some(source) = self.all.get_mut(index) else {
            return;
        };
        let again = match remedy {
            Remedy::Again(_) => true,
            Remedy::Renew => !std::mem::replace(&mut source.renewed, true),
            Remedy::None => false,
        };
        source.health = if again {
            Health::Failing(error)
        } else {
            Health::Out(error)
        };
        self.current = (index + 1) % count;
    }

    /// Bytes came: what was held against passing troubles is forgotten.
    pub(super) fn progressed(&mut self) {
        for source in &mut self.all {
            source.renewed = false;
        }
    }

    /// Nobody is asked any more.
    pub(super) fn close(&mut self) {
        for source in &mut self.all {
            if let Health::Failing(error) = &source.health {
                source.health = Health::Out(error.clone());
            }
        }
    }

    /// The failure that tells most: that of a source that broke off, else of the first that failed.
    pub(super) fn most_telling(&self) -> Option<E> {
        let error = |source: &Standing<E>| match &source.health {
            Health::Failing(error) | Health::Out(error) => Some(error.clone()),
            Health::Untried | Health::Good => None,
        };
        let broken = self.all.iter().filter(|source| source.answered);
        broken.chain(&self.all).find_map(error)
    }
}

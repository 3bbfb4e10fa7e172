//! The formats that a data directory can be in, and the way from an older one to the one that is written now.

use std::io;
use std::path::Path;

use crate::store::files::Files;

/// What leads from a format to the next.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What it does, for the log.
    pub name: &'static str,
    /// Changes the data directory, which nobody else uses meanwhile. What it did is durable when it returns. It may be
    /// cut short anywhere and is then run again, and it may meet a directory that is in the next format already, whose
    /// `layby.json` was lost: so it passes over what is as it should be.
    pub run: fn(&dyn Files, &Path) -> io::Result<()>,
}

/// The formats that a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Formats {
    first: u64,
    steps: &'static [Step],
}

impl Formats {
    /// The formats from `first` on, which each of `steps` leads a step further from.
    pub const fn new(first: u64, steps: &'static [Step]) -> Self {
        Self { first, steps }
    }

    /// The oldest one.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The one that is written.
    pub(super) fn current(&self) -> u64 {
        self.first.saturating_add(self.steps.len() as u64)
    }

    /// The way from a format to the current one: each step, and the format that it leads to.
    pub(super) fn way_from(&self, format: u64) -> impl Iterator<Item = (&'static Step, u64)> {
        let to = (self.first..).skip(1);
        let steps = self.steps.iter().zip(to);
        steps.filter(move |(_, to)| *to > format)
    }
}

impl Default for Formats {
    /// Those of Layby. A change of what is on disk adds a step.
    fn default() -> Self {
        Self::new(1, &[])
    }
}

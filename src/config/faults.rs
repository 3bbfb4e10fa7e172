//! What is wrong with a configuration, all of it at once.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line of the file, from 1; `None` for what no line holds.
    pub line: Option<usize>,
    /// Path of the key as in `upstreams."docker.io".tag_ttl`, or the flag or variable that set it; empty for the file.
    pub key: String,
    /// What is wrong. Never holds a secret.
    pub problem: String,
    /// What to write or do.
    pub instead: String,
}

/// Every mistake found; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    file: Option<PathBuf>,
    list: Vec<Fault>,
}

/// A value that is not what its key wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) problem: String,
    pub(super) instead: String,
}

impl Wrong {
    pub(super) fn new(problem: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            instead: instead.into(),
        }
    }

    /// This as a fault of `key`.
    pub(super) fn of(self, key: impl Into<String>, line: Option<usize>) -> Fault {
        Fault {
            line,
            key: key.into(),
            problem: self.problem,
            instead: self.instead,
        }
    }
}

impl Faults {
    /// The faults of `list` in the order of their lines; `None` when there are none.
    pub(super) fn some(mut list: Vec<Fault>) -> Option<Self> {
        list.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        (!list.is_empty()).then_some(Self { file: None, list })
    }

    /// A fault of no key in particular.
    pub(super) fn one(wrong: Wrong) -> Self {
        Self {
            file: None,
            list: vec![wrong.of("", None)],
        }
    }

    /// These faults as those of a file.
    #[must_use]
    pub(super) fn of_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// The faults, those with a line first and in its order.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.list.iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.problem, self.instead)
    }
}

/// One line for each fault: `file:line: key: problem; what to write instead`.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (&self.file, fault.line) {
                (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
                (Some(file), None) => write!(f, "{}: ", file.display())?,
                (None, Some(line)) => write!(f, "line {line}: ")?,
                (None, None) => {}
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

//! Small files of their own kind beside the content, written as durably as records.

use std::io;

use serde::{Deserialize, Serialize};

use super::change::{Change, Expected};
use super::{Store, refs};

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Images that are pinned by command.
    Pins,
    /// Archives that were imported.
    Imports,
    /// What earlier lives counted.
    Statistics,
    /// How far the scrub is.
    Scrub,
    /// How much the last life has left, if it ended in order: the store's own.
    Totals,
}

/// `totals.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptTotals {
    /// Bytes of committed blobs.
    pub(super) bytes: u64,
}

impl KeptTotals {
    pub(super) fn to_json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl Store {
    /// The note; `None` as well for a file that cannot be one, which is logged. Blocks shortly.
    pub fn get_note(&self, note: Note) -> io::Result<Option<Vec<u8>>> {
        refs::read(&*self.files, &self.layout.note(note))
    }

    /// Writes a note. Durable when it returns.
    pub async fn put_note(&self, note: Note, bytes: Vec<u8>) -> io::Result<()> {
        let change = Change::PutRecord {
            target: self.layout.note(note),
            expected: Expected::Whatever,
            bytes,
        };
        self.committer.make(change).await.map(|_| ())
    }
}

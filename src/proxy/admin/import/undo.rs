//! What an import takes away again: all of it where it is refused, and otherwise blobs that nobody needs.

use std::collections::HashSet;
use std::io;

use crate::config::Pin;
use crate::oci::Digest;
use crate::proxy::Place;
use crate::proxy::admin::digests::DigestSet;
use crate::proxy::admin::remove;
use crate::store::{RefKey, RefKind};

use super::halt::Halt;
use super::intake::Brought;
use super::settle::Settler;
use super::whole::Whole;

/// What an import has written besides blobs.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) pins: Vec<Pin>,
    /// In order. The last of them may not be written.
    pub(super) records: Vec<Record>,
}

/// A record that was written.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: RefKey,
    /// What was there; `None` for nothing.
    pub(super) before: Option<Vec<u8>>,
    pub(super) now: Vec<u8>,
}

impl Written {
    pub(super) fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.records.is_empty()
    }
}

impl Settler<'_> {
    /// Takes back what a refused import has brought and written, as far as nobody else has come to need it. Goes on where
    /// something cannot be taken back, and says the first of that. Blocks.
    pub(super) fn undo(&self, new: &[Brought], written: &Written) -> Result<(), Halt> {
        // Images first: what only they lead to is not needed then.
        let records = self.undo_records(&written.records);
        let blobs = self.remove_unneeded(new, &[]);
        // Last: pins do not protect from that, and what could not be taken back stays protected for so long.
        let pins = self.undo_pins(&written.pins);
        records?;
        blobs?;
        pins
    }

    fn undo_pins(&self, pins: &[Pin]) -> Result<(), Halt> {
        if pins.is_empty() {
            return Ok(());
        }
        let removed = self.pins.remove_all(pins, self.store);
        let removed = self.runtime.block_on(removed);
        self.protection.refresh();
        Ok(removed?)
    }

    /// Lets each record say what it did before, the last first; but not one that somebody else has written since.
    fn undo_records(&self, records: &[Record]) -> io::Result<()> {
        let mut all = Ok(());
        for Record { key, before, now } in records.iter().rev() {
            // Comes after what was asked for and is not written yet.
            let undone = self.runtime.block_on(async {
                match before {
                    Some(before) => {
                        let before = before.clone();
                        self.store.compare_and_put_ref(key, Some(now), before).await
                    }
                    None => self.store.compare_and_remove_ref(key, now).await,
                }
            });
            self.forget(key);
            all = all.and(undone.map(|_| ()));
        }
        all
    }

    fn forget(&self, key: &RefKey) {
        let place = Place {
            upstream: key.upstream.clone(),
            repository: key.repository.clone(),
        };
        match &key.kind {
            RefKind::Tag(tag) => self.memory.forget_tag(&place, tag),
            RefKind::Manifest(digest) | RefKind::Blob(digest) => {
                self.memory.forget_content(&place, digest);
            }
            RefKind::List(_) => {}
        }
    }

    /// Removes those of `new` that neither these images nor any other lead to, and that nobody has used since. Whoever has
    /// one open keeps it. Goes on after one that cannot be removed. Blocks.
    pub(super) fn remove_unneeded(&self, new: &[Brought], wholes: &[Whole]) -> Result<(), Halt> {
        let needed: HashSet<&Digest> = wholes.iter().flat_map(Whole::digests).collect();
        let extra = || new.iter().filter(|one| !needed.contains(&one.digest));
        if extra().next().is_none() {
            return Ok(());
        }
        let kept = remove::led_to(self.store)?;
        let mut all = Ok(());
        for one in extra() {
            all = all.and(self.remove_unless(&kept, one));
        }
        Ok(all?)
    }

    fn remove_unless(&self, kept: &DigestSet, Brought { digest, at }: &Brought) -> io::Result<()> {
        let look = self.store.look_at_blob(digest)?;
        if !kept.contains(digest) && look.is_some_and(|look| look.used <= *at) {
            self.runtime.block_on(self.store.remove_blob(digest))?;
            self.memory.forget_bytes(digest);
        }
        Ok(())
    }
}

//! What an import takes away again: all of it where it is refused, and otherwise blobs that nobody needs.

use std::collections::HashSet;
use std::io;

use futures_util::{StreamExt as _, stream};

use crate::config::Pin;
use crate::oci::Digest;
use crate::proxy::Place;
use crate::proxy::admin::digests::DigestSet;
use crate::proxy::admin::remove;
use crate::store::{RefKey, RefKind};

use super::halt::Halt;
use super::intake::Brought;
use super::settle::{AT_ONCE, Settler};
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
        self.each(records.iter().rev().map(|record| self.undo_record(record)))
    }

    /// Comes after what was asked for and is not written yet.
    async fn undo_record(&self, Record { key, before, now }: &Record) -> io::Result<()> {
        let undone = match before {
            Some(before) => {
                let before = before.clone();
                self.store.compare_and_put_ref(key, Some(now), before).await
            }
            None => self.store.compare_and_remove_ref(key, now).await,
        };
        self.forget(key);
        undone.map(|_| ())
    }

    /// Makes all changes, many at once and begun in this order: one after the other, each would wait for a commit of its own.
    /// Goes on after one that fails.
    fn each<F>(&self, changes: impl Iterator<Item = F>) -> io::Result<()>
    where
        F: Future<Output = io::Result<()>>,
    {
        let all = stream::iter(changes)
            .buffer_unordered(AT_ONCE)
            .fold(Ok(()), async |all: io::Result<()>, one| all.and(one));
        self.runtime.block_on(all)
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
        Ok(self.each(extra().map(|one| self.remove_unless(&kept, one)))?)
    }

    async fn remove_unless(
        &self,
        kept: &DigestSet,
        Brought { digest, at }: &Brought,
    ) -> io::Result<()> {
        let look = self.store.look_at_blob(digest)?;
        if !kept.contains(digest) && look.is_some_and(|look| look.used <= *at) {
            self.store.remove_blob(digest).await?;
            self.memory.forget_bytes(digest);
        }
        Ok(())
    }
}

//! The end of an import: pins, proofs and tags for images whose blobs are durable.

use std::collections::HashSet;
use std::io;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tokio::runtime::Handle;

use crate::config::Pin;
use crate::oci::{Digest, Reference, Tag};
use crate::proxy::admin::memory::Memory;
use crate::proxy::admin::names::ImageName;
use crate::proxy::admin::pins::Pins;
use crate::proxy::admin::protection::Protection;
use crate::proxy::admin::{AdminError, walk};
use crate::proxy::manifests::ManifestRecord;
use crate::proxy::membership::OnRecord;
use crate::proxy::tags::TagRecord;
use crate::runtime::Clock;
use crate::store::{RefKey, RefKind, Store};

use super::halt::Halt;
use super::images::Top;
use super::report::ImportedImage;
use super::undo::{Record, Written};
use super::whole::Whole;

/// Writes what makes blobs images.
pub(super) struct Settler<'a> {
    pub(super) store: &'a Store,
    pub(super) pins: &'a Pins,
    pub(super) protection: &'a Protection,
    pub(super) memory: &'a Memory,
    pub(super) clock: &'a Clock,
    pub(super) runtime: &'a Handle,
}

impl Settler<'_> {
    /// Makes the images ones of the cache. What it writes is in `written`, also where not all can be. Blocks.
    pub(super) fn settle(
        &self,
        wholes: &[Whole],
        pin: bool,
        written: &mut Written,
    ) -> Result<Vec<ImportedImage>, Halt> {
        let pins = if pin {
            self.new_pins(wholes.iter().map(|whole| (&whole.name, &whole.digest)))?
        } else {
            Vec::new()
        };
        // Before they are images: so none of them is one that could be evicted.
        let added = self.pins.add_all(pins, &mut written.pins, self.store);
        self.runtime.block_on(added)?;
        self.prove(wholes, written)?;
        let replaced = self.tag_all(wholes, written)?;
        for whole in wholes {
            let parts = || whole.digests().cloned().collect();
            let Whole { name, digest, .. } = whole;
            self.protection
                .note(&name.place, tag_of(name), digest, parts);
        }
        self.protection.refresh();
        let images = wholes
            .iter()
            .zip(replaced)
            .map(|(whole, replaced)| ImportedImage {
                image: whole.name.to_string(),
                digest: whole.digest.to_string(),
                replaced: replaced.map(|digest| digest.to_string()),
            });
        Ok(images.collect())
    }

    /// Refuses images of which not all could be pinned.
    pub(super) fn check_pins(&self, tops: &[Top]) -> Result<(), Halt> {
        let pins = self.new_pins(tops.iter().map(|top| (&top.name, &top.digest)))?;
        Ok(self.pins.have_room(&pins)?)
    }

    /// Pins for those that no pin is for yet.
    fn new_pins<'i>(
        &self,
        images: impl Iterator<Item = (&'i ImageName, &'i Digest)>,
    ) -> Result<Vec<Pin>, Halt> {
        let mut pins = Vec::new();
        for (name, digest) in images {
            if !self.pins.are_for(&name.place, tag_of(name), digest) {
                let text = name.to_string();
                let pin = text.parse::<Pin>();
                pins.push(pin.map_err(|error| AdminError::Invalid(format!("{text:?} {error}")))?);
            }
        }
        Ok(pins)
    }

    /// Writes that the repositories have all of it; that they have what lists others comes last, since it makes an image.
    fn prove(&self, wholes: &[Whole], written: &mut Written) -> Result<(), Halt> {
        let (mut parts, mut own) = (Vec::new(), Vec::new());
        for whole in wholes {
            let place = &whole.name.place;
            for (digest, len) in &whole.parts.blobs {
                let record = OnRecord { size: Some(*len) };
                let record = serde_json::to_vec(&record).map_err(io::Error::from)?;
                parts.push((place.key(RefKind::Blob(digest.clone())), record));
            }
            for (digest, size, media_type) in &whole.parts.manifests {
                let record = ManifestRecord {
                    media_type: media_type.clone(),
                    size: *size,
                };
                let record = serde_json::to_vec(&record).map_err(io::Error::from)?;
                let is_own = *digest == whole.digest;
                let into = if is_own { &mut own } else { &mut parts };
                into.push((place.key(RefKind::Manifest(digest.clone())), record));
            }
            if parts.len() >= AT_A_TIME {
                self.put_all(std::mem::take(&mut parts), written)?;
            }
        }
        self.put_all(parts, written)?;
        self.put_all(own, written)?;
        for whole in wholes {
            for digest in whole.digests() {
                self.memory.forget_content(&whole.name.place, digest);
            }
        }
        Ok(())
    }

    /// Writes records that are not there.
    fn put_all(&self, records: Vec<(RefKey, Vec<u8>)>, written: &mut Written) -> io::Result<()> {
        let (mut keys, mut new) = (HashSet::new(), Vec::new());
        for (key, now) in records {
            if !self.store.has_ref(&key)? && keys.insert(key.clone()) {
                let before = None;
                new.push(Record { key, before, now });
            }
        }
        self.write(new, written)
    }

    /// Writes records, many at once.
    fn write(&self, records: Vec<Record>, written: &mut Written) -> io::Result<()> {
        let first = written.records.len();
        // Before, since some may be written when one cannot be.
        written.records.extend(records);
        let records = written.records.iter_mut().skip(first);
        let all = stream::iter(records.map(|record| self.put(record)))
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |()| Ok(()));
        self.runtime.block_on(all)
    }

    /// Writes a record in the place of what was there, also where that is not what it was.
    async fn put(&self, Record { key, before, now }: &mut Record) -> io::Result<()> {
        loop {
            let put = self
                .store
                .compare_and_put_ref(key, before.as_deref(), now.clone());
            if put.await? {
                return Ok(());
            }
            *before = self.store.get_ref(key)?;
        }
    }

    /// Lets the tags point at the images; where each pointed before, if that was elsewhere.
    fn tag_all(
        &self,
        wholes: &[Whole],
        written: &mut Written,
    ) -> Result<Vec<Option<Digest>>, Halt> {
        let now = Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let (mut records, mut replaced) = (Vec::new(), Vec::new());
        for whole in wholes {
            let place = &whole.name.place;
            let (Some(tag), Some((_, size, media_type))) =
                (tag_of(&whole.name), whole.parts.manifests.first())
            else {
                replaced.push(None);
                continue;
            };
            let before = walk::tag_record(self.store, place, tag)?;
            let before = before.map(|record| record.digest);
            if before.as_ref() == Some(&whole.digest) {
                replaced.push(None);
                continue;
            }
            replaced.push(before);
            let record = TagRecord {
                digest: whole.digest.clone(),
                previous: None,
                media_type: media_type.clone(),
                size: *size,
                etag: None,
                fetched: now,
                validated: now,
                withdrawn: None,
                // The upstream has not said so: it is asked when it can be.
                ask: true,
            };
            let key = place.key(RefKind::Tag(tag.clone()));
            let before = self.store.get_ref(&key)?;
            let now = serde_json::to_vec(&record).map_err(io::Error::from)?;
            records.push(Record { key, before, now });
        }
        self.write(records, written)?;
        for whole in wholes {
            if let Some(tag) = tag_of(&whole.name) {
                self.memory.forget_tag(&whole.name.place, tag);
            }
        }
        Ok(replaced)
    }
}

fn tag_of(name: &ImageName) -> Option<&Tag> {
    match &name.reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    }
}

/// Changes that are made at once.
pub(super) const AT_ONCE: usize = 64;
/// Records of parts that are looked for at once, but for those of one image.
const AT_A_TIME: usize = 4096;

//! Reading everything that is stored and comparing it with what it should be.
//!
//! A blob that does not match is moved aside and fetched again at its next use; records that cannot be understood are
//! removed; all else is reported and left alone. Runs on a thread of its own and ends when nobody listens any more.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use crate::oci::{Digest, ManifestInfo};
use crate::proxy::Place;
use crate::proxy::manifests::{EMPTY, ManifestRecord};
use crate::proxy::tags::TagRecord;
use crate::store::{PassedOver, RefKey, RefKind, ShardEntry, Soundness, Store};

use super::digests::DigestSet;
use super::heal::Healer;
use super::memory::Memory;
use super::model::{Finding, FindingKind, VerifyEvent, VerifyReport};
use super::names::ImageName;
use super::walk::{self, Image};
use super::{AdminError, remove};

/// A verification under way.
pub(super) struct Verifier {
    pub(super) store: Arc<Store>,
    pub(super) memory: Memory,
    pub(super) healer: Healer,
    pub(super) events: Sender<VerifyEvent>,
    pub(super) stopping: CancellationToken,
    /// For the changes that it makes from its thread.
    pub(super) runtime: Handle,
    /// The right to it, which is over before its end is told: whoever hears of that may begin the next.
    pub(super) turn: OwnedSemaphorePermit,
    pub(super) report: VerifyReport,
    pub(super) last_progress: Instant,
    /// What has been reported gone, or moved aside: one report is enough.
    pub(super) reported: DigestSet,
    /// Lengths by which manifests know blobs; read when they are first needed.
    pub(super) lengths: Option<HashMap<Digest, u64>>,
}

/// Why a verification ends early.
pub(super) enum Halt {
    /// Nobody listens, or Layby stops.
    CalledOff,
    /// What it needs cannot be read.
    Broken(io::Error),
    Failed(AdminError),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

type Checked = Result<(), Halt>;

impl Verifier {
    /// Verifies an image, or everything; tells how it ended. Blocks for as long as it takes.
    pub(super) fn run(mut self, image: Option<&ImageName>) {
        let ended = match image {
            Some(name) => self.image(name),
            None => self.everything(),
        };
        let last = match ended {
            Ok(()) => VerifyEvent::Done(self.report),
            Err(Halt::CalledOff) => return,
            Err(Halt::Broken(error)) => VerifyEvent::Failed {
                message: AdminError::from(error).to_string(),
            },
            Err(Halt::Failed(error)) => VerifyEvent::Failed {
                message: error.to_string(),
            },
        };
        let Self { turn, events, .. } = self;
        drop(turn);
        // Who has left need not know.
        let _ = events.blocking_send(last);
    }

    fn everything(&mut self) -> Checked {
        for path in self.store.foreign_in_root()? {
            self.foreign(&path)?;
        }
        let (shards, passed_over) = self.store.blob_shards()?;
        self.passed_over(passed_over)?;
        for shard in shards {
            let entries = match self.store.shard_entries(&shard) {
                Ok(entries) => entries,
                Err(error) => {
                    self.unreadable(shard.path(), &error)?;
                    continue;
                }
            };
            for entry in entries {
                match entry {
                    ShardEntry::Blob(digest) => self.blob(&digest)?,
                    ShardEntry::Foreign(path) => self.foreign(&path)?,
                }
            }
        }
        self.records()
    }

    fn image(&mut self, name: &ImageName) -> Checked {
        let images = remove::find(&self.store, name)?;
        if images.is_empty() {
            return Err(Halt::Failed(AdminError::unknown_image(name)));
        }
        let mut seen = DigestSet::default();
        for image in &images {
            let mut parts = Vec::new();
            image.each_part(&self.store, &mut |digest| {
                if seen.insert(digest) {
                    parts.push(digest.clone());
                }
            })?;
            for digest in parts {
                if self.store.look_at_blob(&digest)?.is_some() {
                    self.blob(&digest)?;
                }
            }
            self.missing(image)?;
        }
        Ok(())
    }

    fn blob(&mut self, digest: &Digest) -> Checked {
        let store = Arc::clone(&self.store);
        let checked = store.check_blob(digest, &mut |read| {
            self.report.bytes = self.report.bytes.saturating_add(read);
            self.progress().is_ok()
        })?;
        let Some(soundness) = checked else {
            return Err(Halt::CalledOff);
        };
        match soundness {
            // Removed since it was listed.
            Soundness::Missing => return self.progress(),
            Soundness::Sound => self.report.sound = self.report.sound.saturating_add(1),
            _ => {}
        }
        self.report.blobs = self.report.blobs.saturating_add(1);
        let known = match soundness {
            Soundness::Damaged { .. } => self.known_len(digest),
            _ => None,
        };
        let healed = self.healer.heal(digest, soundness, known);
        if let Some(finding) = self.runtime.block_on(healed) {
            self.reported.insert(digest);
            self.found(finding)?;
        }
        self.progress()
    }

    /// The longest that is known of a blob: what was counted, or what a manifest says.
    fn known_len(&mut self, digest: &Digest) -> Option<u64> {
        let counted = self.store.counted_len(digest);
        let lengths = self.lengths.get_or_insert_with(|| lengths(&self.store));
        counted.max(lengths.get(digest).copied())
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) -> Checked {
        self.unreadable_place(path.display().to_string(), None, error.to_string())
    }

    fn unreadable_place(
        &mut self,
        place: String,
        digest: Option<&Digest>,
        found: String,
    ) -> Checked {
        tracing::warn!(place, found, "what is stored cannot be read");
        self.found(Finding {
            kind: FindingKind::Unreadable,
            place,
            digest: digest.map(ToString::to_string),
            found,
            done: "left alone; check its owner, its mode and the disk".to_owned(),
        })
    }

    fn passed_over(&mut self, passed_over: Vec<PassedOver>) -> Checked {
        for what in passed_over {
            match what {
                PassedOver::Foreign(path) => self.foreign(&path)?,
                PassedOver::Unreadable(path, error) => self.unreadable(&path, &error)?,
            }
        }
        Ok(())
    }

    fn foreign(&mut self, path: &Path) -> Checked {
        self.found(Finding {
            kind: FindingKind::Foreign,
            place: path.display().to_string(),
            digest: None,
            found: "not put there by layby".to_owned(),
            done: "left alone; it is never served".to_owned(),
        })
    }

    /// Everything under `refs/`, and what it leads to.
    fn records(&mut self) -> Checked {
        let (mut places, mut passed_over) = (Vec::new(), Vec::new());
        let store = Arc::clone(&self.store);
        let mut note = |upstream, repository| {
            places.push(Place {
                upstream,
                repository,
            });
            Ok(ControlFlow::Continue(()))
        };
        store.each_readable_repository(None, &mut note, &mut |what| {
            passed_over.push(what);
            Ok(())
        })?;
        self.passed_over(passed_over)?;
        for place in places {
            match self.records_of(&place) {
                // Of this repository alone: its directories, as the error says.
                Err(Halt::Broken(error)) => {
                    let name = format!("{}/{}", place.upstream, place.repository);
                    self.unreadable_place(name, None, error.to_string())?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn records_of(&mut self, place: &Place) -> Checked {
        for tag in walk::tags(&self.store, place)? {
            let key = place.key(RefKind::Tag(tag.clone()));
            let record = self.store.get_ref(&key)?.unwrap_or_default();
            if let Err(error) = serde_json::from_slice::<TagRecord>(&record) {
                self.remove_record(&key, &format!("{tag}"), &error)?;
                self.memory.forget_tag(place, &tag);
            }
        }
        for digest in walk::manifests(&self.store, place)? {
            let key = place.key(RefKind::Manifest(digest.clone()));
            let record = self.store.get_ref(&key)?.unwrap_or_default();
            if let Err(error) = serde_json::from_slice::<ManifestRecord>(&record) {
                self.remove_record(&key, digest.as_str(), &error)?;
                self.memory.forget_content(place, &digest);
            }
        }
        let mut images = Vec::new();
        let _ = walk::each_image_of(&self.store, place, None, &mut |image| {
            images.push(image);
            Ok(ControlFlow::Continue(()))
        })?;
        for image in images {
            self.missing(&image)?;
        }
        Ok(())
    }

    fn remove_record(&mut self, key: &RefKey, of: &str, error: &serde_json::Error) -> Checked {
        let place = format!("{}/{} {of}", key.upstream, key.repository);
        let removed = self.runtime.block_on(self.store.remove_ref(key));
        let done = match removed {
            Ok(_) => "removed; it is asked for again at its next use".to_owned(),
            Err(error) => format!("it is still there: {error}"),
        };
        tracing::warn!(record = place, %error, done, "a record is damaged");
        self.found(Finding {
            kind: FindingKind::Record,
            place,
            digest: None,
            found: format!("its record cannot be understood: {error}"),
            done,
        })
    }

    /// Reports what the repository once had of an image and has no longer, each blob once.
    fn missing(&mut self, image: &Image) -> Checked {
        let mut parts = Vec::new();
        image.each_part(&self.store, &mut |digest| parts.push(digest.clone()))?;
        for digest in parts {
            let once_here = walk::is_proven(&self.store, &image.place, &digest)?;
            if !once_here || digest.as_str() == EMPTY {
                continue;
            }
            let looked = self.store.look_at_blob(&digest);
            if matches!(looked, Ok(Some(_))) || !self.reported.insert(&digest) {
                continue;
            }
            if let Err(error) = looked {
                let place = image.name().to_string();
                self.unreadable_place(place, Some(&digest), error.to_string())?;
            } else {
                self.found(Finding {
                    kind: FindingKind::Missing,
                    place: image.name().to_string(),
                    digest: Some(digest.to_string()),
                    found: "it was here once and is not any more".to_owned(),
                    done: "nothing to be done; it is fetched again at its next use".to_owned(),
                })?;
            }
        }
        Ok(())
    }

    fn found(&mut self, finding: Finding) -> Checked {
        self.report.count(finding.kind);
        self.send(VerifyEvent::Found(finding))
    }

    /// Tells how far it is, now and then; fails when it is called off.
    fn progress(&mut self) -> Checked {
        if self.stopping.is_cancelled() || self.events.is_closed() {
            return Err(Halt::CalledOff);
        }
        if self.last_progress.elapsed() < PROGRESS_EVERY {
            return Ok(());
        }
        self.last_progress = Instant::now();
        self.send(VerifyEvent::Progress {
            blobs: self.report.blobs,
            bytes: self.report.bytes,
            of_blobs: self.store.totals().blobs,
        })
    }

    fn send(&self, event: VerifyEvent) -> Checked {
        self.events
            .blocking_send(event)
            .map_err(|_| Halt::CalledOff)
    }
}

/// The length of every blob as manifests say it, as far as they can be read. Blocks.
fn lengths(store: &Store) -> HashMap<Digest, u64> {
    let mut lengths = HashMap::new();
    let walked = walk::each_image(store, None, &mut |image| {
        if let Some((_, record)) = &image.tag {
            lengths.insert(record.digest.clone(), record.size);
        }
        walk::each_manifest(store, &image.digest, None, &mut |node| {
            let info = node.info.iter();
            for named in info.flat_map(|info| info.blobs().chain(ManifestInfo::manifests(info))) {
                lengths.insert(named.digest.clone(), named.size);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ControlFlow::Continue(()))
    });
    if let Err(error) = walked {
        tracing::debug!(%error, "not all manifests can be read");
    }
    lengths
}

/// A client that shows progress needs no more.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

//! Images from an archive into the cache: all of them or, where anything is wrong with one, none.
//!
//! The archive is read once, as it comes. Each blob is compared with its digest on its way into the store, as a fetch does;
//! what is here is not written again, so that an import that was killed goes on where it stood. Only when all blobs of all
//! images are durable are the proofs written that the repositories have them, and the tags last. A refused import takes
//! back what it has brought.

mod bases;
mod halt;
mod images;
mod intake;
pub(super) mod report;
mod settle;
mod undo;
mod whole;

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use crate::bundle::{Fault, Found, Index, MOST_HOPS, Member, Members, Stream};
use crate::oci::Digest;
use crate::runtime::{Clock, PipeReader, Tasks, pipe};
use crate::store::Store;

use super::Archive;
use super::memory::Memory;
use super::names::Names;
use super::pins::Pins;
use super::protection::Protection;
use bases::Bases;
use halt::Halt;
use images::{Namer, Top, of_docker};
use intake::{Intake, Taken};
use report::{ImportEvent, ImportReport, ImportRequest};
use settle::Settler;
use undo::Written;
use whole::{Assembler, Whole};

/// An import under way.
pub(super) struct Importer {
    pub(super) store: Arc<Store>,
    pub(super) names: Arc<Names>,
    pub(super) pins: Arc<Pins>,
    pub(super) protection: Arc<Protection>,
    pub(super) memory: Memory,
    pub(super) clock: Clock,
    pub(super) request: ImportRequest,
    pub(super) events: Sender<ImportEvent>,
    pub(super) stopping: CancellationToken,
    /// For the changes that it makes from its thread.
    pub(super) runtime: Handle,
    /// The right to it, which is over before its end is told.
    pub(super) turn: OwnedSemaphorePermit,
}

/// What has been read of an archive besides blobs.
#[derive(Default)]
struct Documents {
    index: Option<Index>,
    /// What it is called by those who build on it.
    index_digest: Option<Digest>,
    docker: Option<Vec<u8>>,
    /// The images of `index`.
    tops: Vec<Top>,
    /// What was taken in under names that are no digests.
    legacy: HashMap<String, Taken>,
    aliases: HashMap<String, String>,
}

/// How far it is, and whether somebody wants to know.
struct Progress<'a> {
    importer: &'a Importer,
    blobs: u64,
    bytes: u64,
    last: Instant,
}

impl Importer {
    /// Imports what `archive` brings, as a task of `tasks`.
    pub(super) fn start(self, archive: Archive, tasks: &Tasks) {
        let (writer, reader) = pipe();
        tasks.spawn_until_stop(async move {
            let mut pieces = archive.pieces;
            while let Some(piece) = pieces.next().await {
                if !writer.send(piece).await {
                    break;
                }
            }
        });
        tasks.spawn(async move {
            // What is there has to be known before it is known what has room.
            self.store.scanned().await;
            let run = tokio::task::spawn_blocking(move || self.run(reader));
            if let Err(error) = run.await {
                tracing::error!(%error, "an import broke off; please report this");
            }
        });
    }

    /// Blocks for as long as it takes.
    fn run(self, reader: PipeReader) {
        let mut intake = Intake::new(Arc::clone(&self.store), self.runtime.clone());
        let mut written = Written::default();
        let ended = self.import(reader, &mut intake, &mut written);
        let ended = ended.map_err(|halt| match self.called_off() {
            // A stop also cuts the archive off, which is no fault of it, and nothing can be taken back any more.
            Some(called_off) if written.is_empty() || self.stopping.is_cancelled() => called_off,
            _ => halt,
        });
        let last = match ended {
            Ok(report) => ImportEvent::Done(report),
            Err(Halt::CalledOff(message)) => ImportEvent::Failed { message },
            Err(Halt::Refused(error)) => {
                let message = match self.settler().undo(&intake.give_up(), &written) {
                    Ok(()) => error.to_string(),
                    Err(more) => {
                        format!(
                            "{error}; and not all that it had brought could be taken back: {more}"
                        )
                    }
                };
                ImportEvent::Failed { message }
            }
        };
        let Self { turn, events, .. } = self;
        drop((intake, turn));
        // Who has left need not know.
        let _ = events.blocking_send(last);
    }

    /// Why it is not to go on, if so.
    fn called_off(&self) -> Option<Halt> {
        if self.stopping.is_cancelled() {
            let message = "layby is shutting down; import again, it goes on where it stood";
            return Some(Halt::CalledOff(message.to_owned()));
        }
        self.events.is_closed().then(nobody_waits)
    }

    fn import(
        &self,
        reader: PipeReader,
        intake: &mut Intake,
        written: &mut Written,
    ) -> Result<ImportReport, Halt> {
        let namer = Namer {
            names: &self.names,
            given: self.request.name.as_deref(),
        };
        let mut progress = Progress::of(self);
        let mut documents = Self::read(reader, &namer, intake, &mut progress)?;
        intake.commit()?;
        let tops = match (&documents.index, &documents.docker) {
            (Some(_), _) => std::mem::take(&mut documents.tops),
            (None, Some(json)) => {
                let real = |intake: &Intake, member: &Member| documents.real(intake, member);
                of_docker(json, &namer, intake, &real)?
            }
            (None, None) => return Err(Fault::NoImages.into()),
        };
        if tops.is_empty() {
            return Err(Fault::Missing("it lists no image".to_owned()).into());
        }
        let claimed = documents.index.as_ref().map_or(&[][..], |one| &one.bases);
        let wholes = assemble(&tops, claimed, intake, &mut progress)?;
        let mut report = ImportReport {
            pinned: self.request.pin,
            ..ImportReport::default()
        };
        intake.count(&mut report);
        let settler = self.settler();
        report.images = settler.settle(&wholes, self.request.pin, written)?;
        self.tidy(documents.index_digest.as_ref(), &wholes, intake);
        Ok(report)
    }

    /// What follows on an import that is done, and takes nothing from it where it fails.
    fn tidy(&self, index: Option<&Digest>, wholes: &[Whole], intake: &Intake) {
        if let Some(index) = index
            && let Err(error) = bases::note(&self.store, &self.runtime, index, wholes)
        {
            tracing::warn!(%error, "an import could not be noted; before another builds on it, import it again");
        }
        let removed = self.settler().remove_unneeded(intake.new_blobs(), wholes);
        if let Err(error) = removed {
            tracing::warn!(%error, "what an archive had besides its images could not be removed; it is evicted in its time");
        }
    }

    fn read(
        reader: PipeReader,
        namer: &Namer<'_>,
        intake: &mut Intake,
        progress: &mut Progress<'_>,
    ) -> Result<Documents, Halt> {
        let mut documents = Documents::default();
        let mut members = Members::of(reader)?;
        while let Some(entry) = members.next_entry()? {
            match entry.found {
                Found::Alias { name, target } => _ = documents.aliases.insert(name, target),
                Found::File(member) => {
                    let len = entry.len;
                    documents.take(member, len, &mut members, namer, intake, progress)?;
                }
            }
            progress.blobs = progress.blobs.saturating_add(1);
            progress.note(0)?;
        }
        Ok(documents)
    }

    fn settler(&self) -> Settler<'_> {
        Settler {
            store: &self.store,
            pins: &self.pins,
            protection: &self.protection,
            memory: &self.memory,
            clock: &self.clock,
            runtime: &self.runtime,
        }
    }
}

impl Documents {
    /// Takes in a file.
    fn take<R: Read>(
        &mut self,
        member: Member,
        len: u64,
        members: &mut Members<Stream<R>>,
        namer: &Namer<'_>,
        intake: &mut Intake,
        progress: &mut Progress<'_>,
    ) -> Result<(), Halt> {
        match &member {
            Member::Layout => check_version(&members.document(&member, len)?)?,
            Member::Index => {
                let json = members.document(&member, len)?;
                let index = Index::read(&json)?;
                self.index_digest = Some(Digest::sha256(&json));
                self.tops = namer.of_index(&index)?;
                if progress.importer.request.pin {
                    // Rather than when everything has come.
                    progress.importer.settler().check_pins(&self.tops)?;
                }
                intake.announce(
                    self.tops
                        .iter()
                        .map(|top| (&top.digest, top.size, top.media_type.as_deref())),
                );
                self.index = Some(index);
            }
            Member::DockerManifest => self.docker = Some(members.document(&member, len)?),
            Member::Blob(_) | Member::Legacy(_) => {
                let mut go_on = |read| progress.note(read);
                let taken = intake.take(members, &member, len, &mut go_on)?;
                if let (Member::Legacy(name), Some(taken)) = (member, taken) {
                    self.legacy.insert(name, taken);
                }
            }
        }
        Ok(())
    }

    /// What was taken in for a name in `manifest.json`, which may be a link.
    fn real(&self, intake: &Intake, member: &Member) -> Option<Taken> {
        if let Member::Blob(digest) = member {
            return Some(Taken {
                digest: digest.clone(),
                len: intake.len_of(digest)?,
                is_gzip: false,
            });
        }
        self.linked(&member.to_string()).cloned()
    }

    fn linked(&self, name: &str) -> Option<&Taken> {
        let mut name = name;
        for _ in 0..=MOST_HOPS {
            match self.aliases.get(name) {
                Some(target) => name = target,
                None => return self.legacy.get(name),
            }
        }
        None
    }
}

impl<'a> Progress<'a> {
    fn of(importer: &'a Importer) -> Self {
        Self {
            importer,
            blobs: 0,
            bytes: 0,
            last: Instant::now(),
        }
    }

    fn note(&mut self, read: u64) -> Result<(), Halt> {
        self.bytes = self.bytes.saturating_add(read);
        if let Some(halt) = self.importer.called_off() {
            return Err(halt);
        }
        if self.last.elapsed() < PROGRESS_EVERY {
            return Ok(());
        }
        self.last = Instant::now();
        let event = ImportEvent::Progress {
            blobs: self.blobs,
            bytes: self.bytes,
        };
        let sent = self.importer.events.blocking_send(event);
        sent.map_err(|_| nobody_waits())
    }
}

/// What the images are made of, if each is whole.
fn assemble(
    tops: &[Top],
    claimed: &[Digest],
    intake: &mut Intake,
    progress: &mut Progress<'_>,
) -> Result<Vec<Whole>, Halt> {
    let mut go_on = || progress.note(0);
    let bases = Bases::of(&intake.store, claimed, &mut go_on)?;
    let mut assembler = Assembler::new(intake, &bases, &mut go_on);
    tops.iter().map(|top| assembler.whole(top)).collect()
}

fn nobody_waits() -> Halt {
    Halt::CalledOff("nobody waits for the import any more".to_owned())
}

fn check_version(json: &[u8]) -> Result<(), Halt> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        image_layout_version: String,
    }
    let wrong =
        |why: &str| Halt::refused(format!("the archive is refused: oci-layout in it {why}"));
    let version: Version = serde_json::from_slice(json).map_err(|_| wrong("says no version"))?;
    if version.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        Err(wrong("is of a version that is not known here"))
    }
}

/// So often it is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_links_is_followed_so_far_and_no_farther() {
        let taken = Taken {
            digest: Digest::sha256(b"x"),
            len: 1,
            is_gzip: false,
        };
        let mut documents = Documents::default();
        documents.legacy.insert("0".to_owned(), taken);
        for hop in 1..=MOST_HOPS + 1 {
            let (name, target) = (hop.to_string(), (hop - 1).to_string());
            documents.aliases.insert(name, target);
        }
        assert!(documents.linked(&MOST_HOPS.to_string()).is_some());
        assert!(documents.linked(&(MOST_HOPS + 1).to_string()).is_none());
    }
}

//! Writing to a stage: room first, then the bytes, then the note of them, and now and then a write-back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

use super::journal::Journal;
use super::shelf::Hold;
use super::stage::Stage;
use crate::store::chores::Chore;
use crate::store::evict::Want;
use crate::store::files::{at, is_full};
use crate::store::room::RoomError;

/// What whoever writes has to himself.
#[derive(Debug)]
pub(in crate::store) struct Writing {
    /// `None`: nobody will ask for it under a name.
    pub(super) hold: Option<Arc<Hold>>,
    /// `None`: nothing is noted.
    pub(super) journal: Option<Journal>,
    /// The steps of the file for which space has been set aside in this life.
    pub(super) steps: BTreeSet<u64>,
    /// Bytes written since the last write-back.
    pub(super) dirty: u64,
    /// The data directory's lock: nothing is written without it.
    #[expect(dead_code, reason = "held, not used")]
    pub(super) lock: Arc<File>,
}

impl Writing {
    pub(super) fn write(
        &mut self,
        stage: &Stage,
        offset: u64,
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let count = parts.iter().map(|part| part.len() as u64).sum();
        let end = offset.checked_add(count);
        let Some(end) = end.filter(|&end| stage.len.is_none_or(|len| end <= len)) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} ends before {offset} + {count}", stage.path.display()),
            ));
        };
        if stage.write_back.has_failed() {
            // It can never be committed, so there is no use in fetching the rest.
            return stage.sync();
        }
        self.place_with_room(stage, offset, end, parts)?;
        stage.space.wrote(count);
        if let Some(journal) = &mut self.journal {
            journal.written(offset, parts);
        }
        self.dirty = self.dirty.saturating_add(count);
        self.write_back(stage)
    }

    /// Places the bytes; as long as there is no room for them and some can be made, tries again.
    fn place_with_room(
        &mut self,
        stage: &Stage,
        offset: u64,
        end: u64,
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let (mut tries, mut promised) = (0, 0);
        while let Err(error) = self.place(stage, offset, end, parts) {
            let is_disk_full = match &error {
                RoomError::NoRoom { is_disk_full, .. } => *is_disk_full,
                RoomError::Io(error) if is_full(error) => true,
                RoomError::Io(_) => return Err(error.into()),
            };
            let want = Want {
                needed: STEP.max(end - offset),
                is_disk_full: is_disk_full && tries > 0,
                promised,
            };
            let again = (tries < MOST_TRIES).then(|| stage.room.asks().ask_blocking(want));
            match again.flatten() {
                Some(next) => promised = next,
                None => return Err(as_storage_full(error.into())),
            }
            tries += 1;
        }
        Ok(())
    }

    fn place(
        &mut self,
        stage: &Stage,
        offset: u64,
        end: u64,
        parts: &[IoSlice<'_>],
    ) -> Result<(), RoomError> {
        self.make_room(stage, offset, end)?;
        let write = || stage.files.write_parts_at(&stage.file, offset, parts);
        let written = stage.room.with_space(write);
        Ok(written.map_err(|error| at("write to", &stage.path, &error))?)
    }

    /// Claims room for a write, and sets space aside in the file system for the steps that it touches: around it, not
    /// before it, so that nothing is set aside for a gap.
    fn make_room(&mut self, stage: &Stage, offset: u64, end: u64) -> Result<(), RoomError> {
        if stage.len.is_none() && end > stage.space.held() {
            let step = end.checked_next_multiple_of(STEP).unwrap_or(end);
            if stage.room.grow(&stage.space, step).is_err() {
                stage.room.grow(&stage.space, end)?;
            }
        }
        for step in offset / STEP..end.div_ceil(STEP) {
            if !self.steps.insert(step) {
                continue;
            }
            if let Err(error) = set_aside(stage, step) {
                self.steps.remove(&step);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Has what was written go to the disk behind the writer's back, a window or more at a time; makes the writer wait
    /// where the disk is too far behind.
    fn write_back(&mut self, stage: &Stage) -> io::Result<()> {
        if self.dirty < WRITE_BACK_WINDOW {
            return Ok(());
        }
        if !stage.write_back.begin() {
            if self.dirty < MOST_BEHIND {
                return Ok(());
            }
            self.dirty = 0;
            return stage.sync();
        }
        self.dirty = 0;
        let chore = Chore::WriteBack {
            path: stage.path.clone(),
            log: stage.log.clone(),
            state: Arc::clone(&stage.write_back),
            hold: self.hold.clone(),
        };
        match stage.chores.send(chore) {
            Ok(()) => Ok(()),
            Err(_) => stage.sync(),
        }
    }

    /// Notes what was written; whether anything is known to be good.
    pub(super) fn is_worth_keeping(&mut self, stage: &Stage) -> bool {
        if let Some(journal) = &mut self.journal {
            journal.flush();
        }
        // What was resumed is still in the log, whether that was made anew or not.
        !stage.present.is_empty() || self.journal.as_ref().is_some_and(|log| !log.is_empty())
    }
}

/// Sets space aside in the file system for one step of the file, as far as the file will go. Blocks.
pub(super) fn set_aside(stage: &Stage, step: u64) -> io::Result<()> {
    let from = step.saturating_mul(STEP);
    // Without a length, all but a little of it would be set aside for nothing, for good.
    let len = stage
        .len
        .map_or(LEAST_SET_ASIDE, |len| len.saturating_sub(from).min(STEP));
    if len > 0 && (stage.len.is_some() || step == 0) {
        let reserve = || stage.files.reserve(&stage.file, from, len);
        match stage.room.with_space(reserve) {
            // The claim alone must do.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other.map_err(|error| at("set space aside for", &stage.path, &error))?,
        }
    }
    stage.land();
    Ok(())
}

/// A full quota is a full disk to whoever writes.
fn as_storage_full(error: io::Error) -> io::Error {
    if is_full(&error) {
        io::Error::new(io::ErrorKind::StorageFull, error)
    } else {
        error
    }
}

/// Space is claimed and set aside in steps of this.
pub(super) const STEP: u64 = 8 << 20;

/// So often room is made for one write.
const MOST_TRIES: u32 = 4;

/// What is set aside for a file whose length nobody knows: no more than any content takes.
const LEAST_SET_ASIDE: u64 = 1;

/// So many bytes are written before the disk is made to take them. Without it, gigabytes of dirty pages pile up, and
/// the sync at commit stands in every other commit's way. (`sync_file_range` would do it page by page, but takes
/// `unsafe` code, and promises nothing on some file systems.)
const WRITE_BACK_WINDOW: u64 = 32 << 20;

/// While the disk takes what came before, so much more is written before the writer waits for it: a blob comes as fast as
/// the network brings it, and clients get it as fast, unless it is much larger than this. The kernel makes the writer
/// wait sooner where memory is short.
const MOST_BEHIND: u64 = 256 << 20;

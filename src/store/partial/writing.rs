//! Writing to a stage: room first, then the bytes, then the note of them, and now and then a write-back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
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
    /// After how many there is the next.
    pub(super) window: u64,
    /// What the last write-back took along.
    pub(super) under_way: u64,
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
            if self.steps.contains(&step) {
                continue;
            }
            let mut steps = step..step + self.ahead(stage, step);
            if let Err(error) = set_aside(stage, &steps) {
                // There may still be space for what is to be written now.
                if steps.end == step + 1 {
                    return Err(error.into());
                }
                steps.end = step + 1;
                set_aside(stage, &steps)?;
            }
            self.steps.extend(steps);
        }
        Ok(())
    }

    /// For how many steps space is set aside at once: the longer the run that ends here, the more, so that a large blob that
    /// comes in order waits for it a few times only, and a part of one takes little more than itself.
    fn ahead(&self, stage: &Stage, step: u64) -> u64 {
        let before = (0..step).rev().take(MOST_STEPS);
        let run = before.take_while(|step| self.steps.contains(step)).count() as u64;
        let end = stage.len.map_or(step, |len| len.div_ceil(STEP));
        let free = (step..end).take_while(|step| !self.steps.contains(step));
        (free.take(MOST_STEPS).count() as u64).min(run).max(1)
    }

    /// Has what was written go to the disk behind the writer's back, a window or more at a time; makes the writer wait
    /// where the disk is too far behind.
    fn write_back(&mut self, stage: &Stage) -> io::Result<()> {
        if self.dirty < self.window {
            return Ok(());
        }
        if !stage.write_back.begin() {
            if self.dirty.saturating_add(self.under_way) < MOST_BEHIND {
                return Ok(());
            }
            (self.dirty, self.under_way) = (0, 0);
            return stage.sync();
        }
        (self.dirty, self.under_way) = (0, self.dirty);
        self.window = self.window.saturating_mul(2).min(MOST_WINDOW);
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

    /// Whether much has been written since the last write-back began.
    pub(super) fn is_behind(&self) -> bool {
        self.dirty >= LARGE
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

/// Sets space aside in the file system for these steps of the file, as far as the file will go. Blocks.
pub(super) fn set_aside(stage: &Stage, steps: &Range<u64>) -> io::Result<()> {
    let [from, to] = [steps.start, steps.end].map(|step| step.saturating_mul(STEP));
    // Without a length, all but a little of it would be set aside for nothing, for good.
    let len = stage
        .len
        .map_or(LEAST_SET_ASIDE, |len| len.min(to).saturating_sub(from));
    if len > 0 && (stage.len.is_some() || steps.start == 0) {
        let reserve = || stage.files.reserve(&stage.file, from, len);
        // For what may come, nothing gives way.
        let reserved = if steps.end > steps.start + 1 {
            reserve()
        } else {
            stage.room.with_space(reserve)
        };
        match reserved {
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

/// Space is set aside for so many steps at once at most.
const MOST_STEPS: usize = 16;

/// So often room is made for one write.
const MOST_TRIES: u32 = 4;

/// What is set aside for a file whose length nobody knows: no more than any content takes.
const LEAST_SET_ASIDE: u64 = 1;

/// So many bytes are written before the disk is made to take them, then twice as many …
pub(super) const FIRST_WINDOW: u64 = 32 << 20;

/// … and so on, up to this. Without it, gigabytes of dirty pages pile up, a power loss takes all of them, and the sync
/// before the commit takes as long. Each time costs the writer, who waits for the file system's journal. (`sync_file_range`
/// would do it page by page, but takes `unsafe` code, and promises nothing on some file systems.)
const MOST_WINDOW: u64 = 128 << 20;

/// What is more than this is synced before it is committed, by itself.
const LARGE: u64 = 8 << 20;

/// So much waits for the disk, with what it is taking, before the writer waits for it: a blob comes as fast as the network
/// brings it, and clients get it as fast, unless it is much larger than this. The kernel makes the writer
/// wait sooner where memory is short. What is left at the end is synced before the commit, and holds up no other; but a stop waits
/// for it.
const MOST_BEHIND: u64 = 512 << 20;

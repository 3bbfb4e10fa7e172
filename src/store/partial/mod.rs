//! Blobs on their way in. A stage is a file in `partial/` that a fetch writes to; when it is closed without a commit and
//! a log tells which of its bytes are good, it stays there as a *partial*, idle, until a later fetch goes on with it, a
//! day has passed, or its room is needed.
//!
//! Owns the files in `partial/`, their logs, and who may write to them. Never publishes anything: that is the commit's.
//! Imports the rest of the store as far as it concerns files, paths, room and chores.

mod blocks;
mod journal;
mod log;
mod recover;
mod shelf;
mod stage;
mod write_back;
mod writing;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::chores::Chore;
use super::evict::Want;
use super::files::{Files, at, is_full, regular};
use super::layout::{Layout, PartialId};
use super::room::{Reservation, Room, RoomError};

pub use log::{Block, BootId, LogHeader, MAX_BLOCK, checksum};
pub use shelf::StageKey;
pub use stage::StagedBlob;

pub(super) use recover::logged_len;
pub(super) use shelf::{ABANDONED_AFTER, Hold, Idle, Shelf, is_older, remove};
pub(super) use stage::{Committing, Fate, Stage};
pub(super) use write_back::WriteBack;
pub(super) use writing::Writing;

use journal::Journal;
use recover::Recovered;
use stage::Phase;
use writing::{FIRST_WINDOW, STEP, set_aside};

/// Makes stages.
#[derive(Debug, Clone)]
pub(super) struct Partials {
    pub(super) files: Arc<dyn Files>,
    pub(super) layout: Layout,
    pub(super) room: Arc<Room>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) chores: UnboundedSender<Chore>,
    pub(super) boot: BootId,
    /// The data directory's lock, as long as the store may write.
    pub(super) lock: Weak<File>,
}

/// Where the files of a stage are.
struct Names {
    data: PathBuf,
    log: Option<PathBuf>,
}

/// What a stage is made of.
struct Parts {
    hold: Option<Arc<Hold>>,
    path: PathBuf,
    log: Option<PathBuf>,
    file: File,
    len: Option<u64>,
    present: Vec<Range<u64>>,
    journal: Option<Journal>,
    space: Arc<Reservation>,
}

impl Partials {
    /// What lies under `key`, with the bytes that are good. See [`super::Store::resume`].
    pub(super) async fn resume(&self, key: StageKey) -> Result<Option<StagedBlob>, RoomError> {
        let hold = Arc::new(self.shelf.take(key).await);
        let Some(idle) = hold.idle() else {
            return Ok(None);
        };
        let this = self.clone();
        self.with_room(move || this.reopen(&hold, &idle)).await
    }

    /// A new stage under `key`. See [`super::Store::stage`].
    pub(super) async fn stage(
        &self,
        key: StageKey,
        len: Option<u64>,
    ) -> Result<StagedBlob, RoomError> {
        let hold = Arc::new(self.shelf.take(key).await);
        let this = self.clone();
        self.with_room(move || this.make(Some(&hold), len)).await
    }

    /// A stage of `len` bytes that nobody will resume. See [`super::Store::put_blob`].
    pub(super) async fn scratch(&self, len: u64) -> Result<StagedBlob, RoomError> {
        let this = self.clone();
        self.with_room(move || this.make(None, Some(len))).await
    }

    /// Does `work` where it may block; as long as there is no room for it and some can be made, again.
    async fn with_room<T: Send + 'static>(
        &self,
        work: impl Fn() -> Result<T, RoomError> + Send + Sync + 'static,
    ) -> Result<T, RoomError> {
        let work = Arc::new(work);
        let (mut tries, mut promised) = (0, 0);
        loop {
            let one = Arc::clone(&work);
            let error = match blocking(move || one()).await {
                Err(error @ RoomError::NoRoom { .. }) if tries < MOST_TRIES => error,
                other => return other,
            };
            let RoomError::NoRoom {
                needed,
                is_disk_full,
            } = error
            else {
                return Err(error);
            };
            if self.room.counted().await {
                continue;
            }
            let want = Want {
                needed,
                // Where there is room by all sums and the disk is full all the same, the next time says so.
                is_disk_full: is_disk_full && tries > 0,
                promised,
            };
            match self.room.asks().ask(want).await {
                Some(next) => promised = next,
                None => return Err(error),
            }
            tries += 1;
        }
    }

    fn make(&self, hold: Option<&Arc<Hold>>, len: Option<u64>) -> Result<StagedBlob, RoomError> {
        let needed = len.unwrap_or(LEAST_CLAIM);
        let made = if let Some(hold) = hold {
            self.replace(hold, len, needed)?
        } else {
            let space = Arc::new(self.room.reserve(needed)?);
            self.create(&self.unnamed(None), None, len, space)
        };
        made.map(StagedBlob::new)
            .map_err(|error| no_room_if_full(error, needed))
    }

    /// A stage in the place of what lies under a key, if anything does. There must be room for it, towards which that
    /// counts itself; and it is made aside and moved to its place in the end: whoever is refused, or finds the disk
    /// failing, may still go on with what lay there.
    fn replace(
        &self,
        hold: &Arc<Hold>,
        len: Option<u64>,
        needed: u64,
    ) -> Result<io::Result<Stage>, RoomError> {
        let kept_len = len.filter(|&len| len >= LEAST_KEPT);
        let names = kept_len.map(|_| Names {
            data: self.layout.stage(hold.key()),
            log: Some(self.layout.stage_log(hold.key())),
        });
        let names = names.unwrap_or_else(|| self.unnamed(None));
        let Some(idle) = hold.idle() else {
            let space = Arc::new(self.room.reserve(needed)?);
            if let Some(log) = &names.log {
                // What it says of another file would be believed of this one.
                remove(&*self.files, log)?;
            }
            let create = || self.create(&names, Some(hold), len, Arc::clone(&space));
            return Ok(match create() {
                // Nobody knows of what lies there.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    hold.clear()?;
                    create()
                }
                made => made,
            });
        };
        let before = idle.space.held();
        self.room.grow(&idle.space, needed)?;
        let aside = self.unnamed(names.log.as_deref());
        let made = self.create(&aside, Some(hold), len, Arc::clone(&idle.space));
        let moved = made.and_then(|mut stage| {
            let put = put_in_place(hold, &mut stage, names);
            self.or_removed(&aside, put.map(|()| stage))
        });
        match &moved {
            Ok(stage) => {
                idle.space.start_over(needed);
                stage.land();
            }
            Err(_) => idle.space.settle(before),
        }
        Ok(moved)
    }

    /// Names that nobody else has, also for a log where there is to be one.
    fn unnamed(&self, log: Option<&Path>) -> Names {
        let random = || self.layout.partial(PartialId::random());
        Names {
            data: random(),
            log: log.map(|_| random()),
        }
    }

    /// Makes the files.
    fn create(
        &self,
        names: &Names,
        hold: Option<&Arc<Hold>>,
        len: Option<u64>,
        space: Arc<Reservation>,
    ) -> io::Result<Stage> {
        let Names { data, log } = names;
        let file = self.room.with_space(|| self.files.create(data));
        let file = file.map_err(|error| at("create", data, &error))?;
        let journal = log.as_ref().zip(len);
        let made = self.ready(Parts {
            hold: hold.cloned(),
            path: data.clone(),
            log: log.clone(),
            file,
            len,
            present: Vec::new(),
            journal: journal.map(|(log, len)| self.journal(log, len)),
            space,
        });
        self.or_removed(names, made)
    }

    /// Removes the files again if the stage was not `made`.
    fn or_removed(&self, names: &Names, made: io::Result<Stage>) -> io::Result<Stage> {
        if made.is_err() {
            for path in names.log.iter().chain([&names.data]) {
                // Where that fails, the next start will try again.
                let _ = remove(&*self.files, path);
            }
        }
        made
    }

    fn journal(&self, path: &Path, len: u64) -> Journal {
        let header = LogHeader {
            boot: self.boot,
            len,
        };
        Journal::new(Arc::clone(&self.files), path.to_owned(), header)
    }

    /// Goes on with an idle partial; `None`, and it is gone, where nothing of it is good.
    fn reopen(&self, hold: &Arc<Hold>, idle: &Idle) -> Result<Option<StagedBlob>, RoomError> {
        let log = self.layout.stage_log(hold.key());
        let Some(len) = logged_len(&*self.files, &log)? else {
            hold.clear()?;
            return Ok(None);
        };
        let before = idle.space.held();
        self.room.grow(&idle.space, len)?;
        let reopened = self.recover(hold, idle, log);
        if !matches!(reopened, Ok(Some(_))) {
            idle.space.settle(before);
        }
        match reopened {
            Ok(Some(stage)) => {
                // From here on its end says what it leaves.
                hold.leave(None);
                Ok(Some(StagedBlob::new(stage)))
            }
            Ok(None) => {
                hold.clear()?;
                Ok(None)
            }
            Err(error) => Err(no_room_if_full(error, len)),
        }
    }

    fn recover(&self, hold: &Arc<Hold>, idle: &Idle, log: PathBuf) -> io::Result<Option<Stage>> {
        let path = self.layout.stage(hold.key());
        let Some((file, _)) = regular(&*self.files, &path, self.files.reopen(&path))? else {
            return Ok(None);
        };
        let scratch = self.layout.partial(PartialId::random());
        let recovered = recover::recover(&self.files, &file, &log, &scratch, self.boot)?;
        let Some(Recovered {
            len,
            present,
            journal,
        }) = recovered
        else {
            return Ok(None);
        };
        let stage = self.ready(Parts {
            hold: Some(Arc::clone(hold)),
            path,
            log: Some(log),
            file,
            len: Some(len),
            present,
            journal,
            space: Arc::clone(&idle.space),
        })?;
        Ok(Some(stage))
    }

    /// A stage that has space for its first bytes: a disk that takes names but no bytes is found out now, not when
    /// somebody waits for them.
    fn ready(&self, parts: Parts) -> io::Result<Stage> {
        let Some(lock) = self.lock.upgrade() else {
            return Err(io::Error::other("the store has stopped"));
        };
        let first = parts.present.first().filter(|first| first.start == 0);
        let step = first.map_or(0, |first| first.end) / STEP;
        let writing = Writing {
            hold: parts.hold,
            journal: parts.journal,
            steps: BTreeSet::from([step]),
            // Nobody knows how much of that the disk has.
            dirty: parts.present.iter().map(|part| part.end - part.start).sum(),
            window: FIRST_WINDOW,
            under_way: 0,
            lock,
        };
        let stage = Stage {
            files: Arc::clone(&self.files),
            room: Arc::clone(&self.room),
            chores: self.chores.clone(),
            path: parts.path,
            log: parts.log,
            file: Arc::new(parts.file),
            len: parts.len,
            present: parts.present,
            space: parts.space,
            write_back: Arc::default(),
            phase: Mutex::new(Phase::Open(Box::new(writing))),
            is_removed: AtomicBool::new(false),
            reading: OnceLock::new(),
        };
        set_aside(&stage, &(step..step + 1))?;
        Ok(stage)
    }
}

/// Moves a stage to where its predecessor lies, which is gone from then on.
fn put_in_place(hold: &Hold, stage: &mut Stage, names: Names) -> io::Result<()> {
    let Names { data, log } = names;
    hold.clear()?;
    let moved = stage.files.rename(&stage.path, &data);
    moved.map_err(|error| at("move an unfinished file to", &data, &error))?;
    if let (Phase::Open(writing), Some(log)) = (stage.phase.get_mut(), &log)
        && let Some(journal) = &mut writing.journal
    {
        journal.replace(log.clone())?;
    }
    (stage.path, stage.log) = (data, log);
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RoomError> + Send + 'static,
) -> Result<T, RoomError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}

fn no_room_if_full(error: io::Error, needed: u64) -> RoomError {
    if is_full(&error) {
        RoomError::NoRoom {
            needed,
            is_disk_full: true,
        }
    } else {
        RoomError::Io(error)
    }
}

/// Smaller blobs are fetched again from the start: they have no log, and are not kept.
const LEAST_KEPT: u64 = 1 << 20;

/// Others may take the room that was made.
const MOST_TRIES: u32 = 4;

/// Claimed for a blob whose length nobody knows, so that a full disk is found out at once.
const LEAST_CLAIM: u64 = 1;

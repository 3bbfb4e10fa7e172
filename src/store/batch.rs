//! The steps of a commit, for all changes of a batch: prepare, sync, publish, sync directories, answer.
//!
//! Runs on one blocking thread at a time, which is what makes compare-and-put whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::runtime::Clock;

use super::change::{Change, Expected, Seen};
use super::commit::Job;
use super::damaged;
use super::evict::carry_out;
use super::files::{Files, at, is_absent};
use super::layout::{Layout, PartialId};
use super::notes::{KeptTotals, Note};
use super::partial::{Shelf, remove};
use super::refs::{self, MAX_REF_LEN};
use super::usage::Usage;

/// Carries batches out.
#[derive(Debug)]
pub(super) struct Batcher {
    files: Arc<dyn Files>,
    layout: Layout,
    usage: Arc<Usage>,
    shelf: Arc<Shelf>,
    clock: Clock,
    /// Directories whose entry in their parent is durable.
    durable_dirs: Mutex<HashSet<PathBuf>>,
    /// Held as long as the directory may be written to.
    _lock: Arc<File>,
}

/// A job on its way through the steps.
#[derive(Debug)]
struct Work {
    job: Job,
    state: io::Result<State>,
    /// Directories to be synced before the change counts as made.
    dirs: BTreeSet<PathBuf>,
    /// Directories that are durable then.
    made: Vec<PathBuf>,
}

#[derive(Debug)]
enum State {
    /// Nothing left to do.
    Done(bool),
    /// The stage is to be synced and moved.
    Stage,
    /// A record's new content, to be synced and moved.
    Record { temp: PathBuf, file: File },
    /// To be removed.
    Remove,
    /// To be moved aside.
    Aside,
}

impl Batcher {
    pub(super) fn new(
        files: Arc<dyn Files>,
        layout: Layout,
        usage: Arc<Usage>,
        shelf: Arc<Shelf>,
        clock: Clock,
        lock: Arc<File>,
    ) -> Self {
        Self {
            files,
            layout,
            usage,
            shelf,
            clock,
            durable_dirs: Mutex::default(),
            _lock: lock,
        }
    }

    /// Makes the changes and answers those who wait. Changes of one path are made one after the other, in order.
    pub(super) fn run(&self, jobs: Vec<Job>) {
        let mut paths = HashSet::new();
        let mut round = Vec::new();
        for job in jobs {
            if !paths.insert(job.change.target().to_owned()) {
                self.round(std::mem::take(&mut round));
                paths.clear();
                paths.insert(job.change.target().to_owned());
            }
            round.push(job);
        }
        self.round(round);
    }

    /// The order that durability hangs on: content, then its name, then the directory that holds the name.
    fn round(&self, jobs: Vec<Job>) {
        let mut works: Vec<Work> = jobs.into_iter().map(|job| self.prepare(job)).collect();
        self.sync_all(&mut works);
        for work in &mut works {
            self.publish(work);
        }
        // After all moves, so that a directory that one of them needs is not taken away as empty.
        for work in &mut works {
            self.remove(work);
        }
        self.sync_dirs(&mut works);
        for work in works {
            self.answer(work);
        }
    }

    /// Leaves word of how much there is, when no change will be made any more. Without it the next life has to count first.
    pub(super) fn leave_totals(&self) {
        let Some(bytes) = self.usage.expected() else {
            return;
        };
        let written = KeptTotals { bytes }.to_json().and_then(|bytes| {
            let State::Record { temp, file } = self.write_record(&bytes)? else {
                return Ok(());
            };
            self.files.sync_data(&file)?;
            self.files.rename(&temp, &self.layout.note(Note::Totals))?;
            self.files.sync_dir(self.layout.root())
        });
        if let Err(error) = written {
            tracing::debug!(%error, "no word is left of how much is stored; the next start counts first");
        }
    }

    fn prepare(&self, job: Job) -> Work {
        let mut work = Work {
            job,
            state: Ok(State::Done(false)),
            dirs: BTreeSet::new(),
            made: Vec::new(),
        };
        work.state = self.first_state(&work.job.change);
        let needed = match (&work.state, &work.job.change) {
            (Ok(State::Stage | State::Record { .. }), change) => change.target().parent(),
            (Ok(State::Aside), Change::MoveAside { aside, .. }) => {
                let dir = aside.as_ref().and_then(|aside| aside.path.parent());
                if let Some(dir) = dir {
                    // An operator who is done with what is in there may have removed it.
                    self.durable_dirs.lock().remove(dir);
                }
                dir
            }
            _ => None,
        };
        if let Some(dir) = needed.map(Path::to_owned) {
            let made = self.make_dir(&dir, &mut work);
            work.dirs.insert(dir);
            self.fail_on(&mut work, made);
        }
        work
    }

    fn first_state(&self, change: &Change) -> io::Result<State> {
        match change {
            Change::Commit { stage, len, .. } => {
                let found = stage.stage().len_so_far()?;
                if found != *len {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{found} bytes were staged instead of {len}"),
                    ));
                }
                Ok(State::Stage)
            }
            Change::PutRecord {
                target,
                expected,
                bytes,
            } => {
                if let Expected::Exactly(expected) = expected
                    && refs::read(&*self.files, target)? != *expected
                {
                    return Ok(State::Done(false));
                }
                self.write_record(bytes)
            }
            Change::RemoveRecord { .. } | Change::RemoveBlob { .. } | Change::Evict { .. } => {
                Ok(State::Remove)
            }
            Change::MoveAside { .. } => Ok(State::Aside),
        }
    }

    /// Records are written in `partial/` like everything else, where a start finds and removes what is left of them.
    fn write_record(&self, bytes: &[u8]) -> io::Result<State> {
        if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_REF_LEN) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes are more than a record may have", bytes.len()),
            ));
        }
        let temp = self.layout.partial(PartialId::random());
        let file = self
            .files
            .create(&temp)
            .map_err(|error| at("create", &temp, &error))?;
        if let Err(error) = self.files.write_at(&file, 0, bytes) {
            self.discard(&temp);
            return Err(at("write to", &temp, &error));
        }
        Ok(State::Record { temp, file })
    }

    /// Creates a directory and those above it, unless they are known to be durable.
    fn make_dir(&self, dir: &Path, work: &mut Work) -> io::Result<()> {
        if dir == self.layout.root() || self.durable_dirs.lock().contains(dir) {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or_else(|| self.layout.root());
        self.make_dir(parent, work)?;
        match self.files.create_dir(dir) {
            // It may be there from a life that ended before it was synced.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(at("create", dir, &error));
            }
            _ => {}
        }
        work.dirs.insert(parent.to_owned());
        work.made.push(dir.to_owned());
        Ok(())
    }

    /// Syncs on several threads: those that wait at the same time share the file system's journal commits, and small
    /// ones do not wait for a large one.
    fn sync_all(&self, works: &mut [Work]) {
        let helpers = works.len().min(SYNC_THREADS).saturating_sub(1);
        let queue = Mutex::new(works.iter_mut());
        let work_on = || {
            loop {
                let Some(work) = queue.lock().next() else {
                    break;
                };
                self.sync(work);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                let thread = std::thread::Builder::new().name("layby-sync".to_owned());
                // Without a helper, this thread does it all.
                let _ = thread.spawn_scoped(scope, work_on);
            }
            work_on();
        });
    }

    fn sync(&self, work: &mut Work) {
        let synced = match (&work.state, &work.job.change) {
            (Ok(State::Stage), change) => change.sync(),
            (Ok(State::Record { temp, file }), Change::PutRecord { bytes, .. })
                if !bytes.is_empty() =>
            {
                let synced = self.files.sync_data(file);
                synced.map_err(|error| at("sync", temp, &error))
            }
            _ => Ok(()),
        };
        self.fail_on(work, synced);
    }

    fn publish(&self, work: &mut Work) {
        let target = work.job.change.target();
        let moved = match (&work.state, &work.job.change) {
            (Ok(State::Stage), Change::Commit { stage, .. }) => {
                self.files.rename(stage.stage().path(), target)
            }
            (Ok(State::Record { temp, .. }), _) => self.files.rename(temp, target),
            _ => return,
        };
        if let Err(error) = moved {
            let error = at("move a finished file to", target, &error);
            return self.fail_on(work, Err(error));
        }
        let mut is_new = true;
        if let Change::Commit {
            stage,
            len,
            digest,
            at,
            ..
        } = &mut work.job.change
        {
            is_new = self.usage.add(digest, *len, *at);
            // Whoever holds the stage reads the blob.
            stage.committed(self.usage.hold(digest));
        }
        work.state = Ok(State::Done(is_new));
    }

    fn remove(&self, work: &mut Work) {
        if matches!(work.state, Ok(State::Aside)) {
            return self.move_aside(work);
        }
        if !matches!(work.state, Ok(State::Remove)) {
            return;
        }
        if let Change::Evict {
            chosen, outcome, ..
        } = &work.job.change
        {
            carry_out(&*self.files, &self.layout, &self.usage, chosen, outcome);
            work.state = Ok(State::Done(true));
            return;
        }
        match self.is_as_seen(&work.job.change) {
            Ok(true) => {}
            Ok(false) => {
                work.state = Ok(State::Done(false));
                return;
            }
            Err(error) => return self.fail_on(work, Err(error)),
        }
        let target = work.job.change.target();
        work.state = match self.files.unlink(target) {
            Ok(()) => Ok(State::Done(true)),
            Err(error) if is_absent(&error) => Ok(State::Done(false)),
            Err(error) => Err(at("remove", target, &error)),
        };
        match (&work.state, &work.job.change) {
            // Also where there was nothing: an earlier removal may not have reached the disk.
            (Ok(_), Change::RemoveBlob { digest, target, .. }) => {
                self.usage.remove(digest);
                work.dirs.extend(target.parent().map(Path::to_owned));
            }
            (Ok(_), Change::RemoveRecord { target, .. }) => {
                work.dirs.insert(self.prune(target));
            }
            _ => {}
        }
    }

    /// Whether what is to be removed still is what it was when it was looked at. Everything else of this round is in place
    /// by now.
    fn is_as_seen(&self, change: &Change) -> io::Result<bool> {
        match change {
            Change::RemoveBlob {
                target,
                of_len: Some(len),
                ..
            } => {
                let stat = self.files.stat(target);
                Ok(stat.map_or(true, |stat| stat.len == *len))
            }
            Change::RemoveRecord {
                target,
                only_if: Some(Seen::Orphan(orphan)),
            } => orphan.still_is(&*self.files, &self.usage, &self.shelf, target),
            Change::RemoveRecord {
                target,
                only_if: Some(Seen::Bytes(bytes)),
            } => Ok(refs::read(&*self.files, target)?.as_ref() == Some(bytes)),
            _ => Ok(true),
        }
    }

    /// A blob that was committed anew since it was looked at is left where it is.
    fn move_aside(&self, work: &mut Work) {
        let Change::MoveAside {
            digest,
            target,
            seen,
            aside,
        } = &work.job.change
        else {
            return;
        };
        let moved = match self.files.stat(target) {
            Ok(stat) if stat.id == *seen => {
                let (files, now) = (&*self.files, self.clock.now());
                let gone = match aside {
                    Some(aside) => {
                        let (layout, dirs) = (&self.layout, &work.dirs);
                        damaged::move_to(files, layout, aside, dirs, target, stat.len, now)
                    }
                    None => files.unlink(target),
                };
                gone.map(|()| true)
            }
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        work.state = match moved {
            // Absent may be what it was to be moved to.
            Err(error) if !is_absent(&error) || self.files.stat(target).is_ok() => {
                Err(at("move aside", target, &error))
            }
            moved => {
                let is_moved = matches!(moved, Ok(true));
                if is_moved || moved.is_err() {
                    self.usage.remove(digest);
                    work.dirs.extend(target.parent().map(Path::to_owned));
                }
                Ok(State::Done(is_moved))
            }
        };
    }

    /// Removes the directories above a record that are empty now. Returns the first that stays.
    fn prune(&self, record: &Path) -> PathBuf {
        let refs = self.layout.refs_dir();
        let above = record.ancestors().skip(1);
        for dir in above.take_while(|dir| **dir != refs) {
            match self.files.remove_dir(dir) {
                Err(error) if !is_absent(&error) => return dir.to_owned(),
                _ => self.durable_dirs.lock().remove(dir),
            };
        }
        refs
    }

    /// Syncs each directory once, and fails those whose directory fails.
    fn sync_dirs(&self, works: &mut [Work]) {
        let mut results: BTreeMap<PathBuf, io::Result<()>> = BTreeMap::new();
        for work in works {
            if work.state.is_err() {
                continue;
            }
            for dir in std::mem::take(&mut work.dirs) {
                let result = results.entry(dir).or_insert_with_key(|dir| {
                    match self.files.sync_dir(dir) {
                        // Another of this batch has removed it as empty.
                        Err(error) if is_absent(&error) => Ok(()),
                        other => other.map_err(|error| at("sync", dir, &error)),
                    }
                });
                if let Err(error) = result {
                    work.state = Err(io::Error::new(error.kind(), error.to_string()));
                }
            }
        }
    }

    fn answer(&self, work: Work) {
        let Work {
            job, state, made, ..
        } = work;
        let mut durable = self.durable_dirs.lock();
        if state.is_ok() {
            if durable.len() >= MOST_DURABLE_DIRS {
                durable.clear();
            }
            durable.extend(made);
        } else {
            // Whatever is wrong there, the next change looks at the directories again.
            let above = job.change.target().ancestors().skip(1);
            for dir in above.take_while(|dir| *dir != self.layout.root()) {
                durable.remove(dir);
            }
        }
        drop(durable);
        let result = state.map(|state| matches!(state, State::Done(true)));
        job.answer(result);
    }

    /// Removes a file that nobody will move.
    fn discard(&self, path: &Path) {
        if let Err(error) = remove(&*self.files, path) {
            tracing::warn!(%error, "an unfinished file cannot be removed; the next start will try again");
        }
    }

    /// Ends the work where `result` is an error, and removes its unfinished file; a stage removes its own.
    fn fail_on(&self, work: &mut Work, result: io::Result<()>) {
        let Err(error) = result else { return };
        if let Ok(State::Record { temp, .. }) = &work.state {
            self.discard(temp);
        }
        work.state = Err(error);
    }
}

/// Threads that sync the files of one batch.
const SYNC_THREADS: usize = 8;

/// Bounds the memory for directories; forgetting one costs a sync.
const MOST_DURABLE_DIRS: usize = 64 * 1024;

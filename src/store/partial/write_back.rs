//! Brings what was written to the disk, and knows when that has failed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::shelf::remove;
use crate::store::files::{Files, at, is_absent};

/// The way of one stage's bytes to the disk.
#[derive(Debug, Default)]
pub(in crate::store) struct WriteBack {
    /// The previous window is still on its way.
    is_busy: AtomicBool,
    /// What the disk holds is unknown, for good: the kernel reports lost pages once and then calls them clean.
    has_failed: AtomicBool,
    /// The stage's name is durable.
    is_named: AtomicBool,
}

impl WriteBack {
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }

    /// Whether a window is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Whether the last window may go; [`WriteBack::run`] is to follow.
    pub(super) fn begin(&self) -> bool {
        !self.is_busy.swap(true, Ordering::AcqRel)
    }

    /// Makes what was written to `file` durable. A failure is final. Blocks.
    pub(super) fn sync(&self, files: &dyn Files, path: &Path, file: &File) -> io::Result<()> {
        if self.has_failed() {
            return Err(io::Error::other(format!(
                "cannot trust {}: an earlier sync of it failed, check the disk",
                path.display()
            )));
        }
        files.sync_data(file).map_err(|error| {
            self.has_failed.store(true, Ordering::SeqCst);
            at("sync", path, &error)
        })
    }

    /// Writes the file at `path` back, then its log, so that a power loss takes no more than what came since. Through
    /// handles of its own: the kernel tells each handle once of pages that it lost, and the stage's must be told at
    /// commit. Where the bytes were lost, the log goes, so that nobody trusts it.
    pub(in crate::store) fn run(&self, files: &dyn Files, path: &Path, log: Option<&Path>) {
        match files.open(path).map(|file| files.sync_data(&file)) {
            Ok(Ok(())) => self.sync_log(files, log),
            // Committed or removed meanwhile.
            Err(error) if is_absent(&error) => {}
            // Nothing is known to be lost: too many open files, say. The next window takes this one along.
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "write-back skipped");
            }
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "write-back failed; the commit will too");
                self.has_failed.store(true, Ordering::SeqCst);
                if let Some(Err(error)) = log.map(|log| remove(files, log)) {
                    tracing::warn!(%error, "the log of lost bytes cannot be removed");
                }
            }
        }
        self.is_busy.store(false, Ordering::Release);
    }

    fn sync_log(&self, files: &dyn Files, log: Option<&Path>) {
        let Some(log) = log else { return };
        let synced = sync_at(files, log).and_then(|()| match log.parent() {
            Some(dir) if !self.is_named.load(Ordering::Acquire) => files.sync_dir(dir),
            _ => Ok(()),
        });
        match synced {
            Ok(()) => self.is_named.store(true, Ordering::Release),
            Err(error) if is_absent(&error) => {}
            // A later fetch finds less, and nothing wrong.
            Err(error) => {
                tracing::debug!(path = %log.display(), %error, "the log of an unfinished blob is not on disk");
            }
        }
    }
}

fn sync_at(files: &dyn Files, path: &Path) -> io::Result<()> {
    files.open(path).and_then(|file| files.sync_data(&file))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::files::Disk;

    #[test]
    fn a_write_back_that_cannot_open_the_file_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other, log] = ["stage", "other", "log"].map(|name| dir.path().join(name));
        fs::write(&other, "bytes").unwrap();
        fs::write(&log, "what is good").unwrap();
        // A link is never followed: it opens as little as any file while there are too many open.
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let state = WriteBack::default();
        assert!(state.begin());
        state.run(&Disk, &path, Some(&log));
        assert!(!state.has_failed() && log.is_file());
        assert!(state.begin(), "the next window may go");
        let file = File::open(&other).unwrap();
        state.sync(&Disk, &other, &file).unwrap();
    }
}

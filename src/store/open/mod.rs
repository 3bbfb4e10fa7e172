//! Taking a data directory into use: making it, locking it, knowing its format, tidying up after the last life.

mod formats;
mod leftovers;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::runtime::Clock;

use crate::store::files::{Files, is_absent, open_regular};
use crate::store::layout::{Layout, PartialId};
use crate::store::notes::{KeptTotals, Note};
use crate::store::partial::{BootId, StageKey};
use crate::store::refs;

pub use formats::{Formats, Step};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused something.
    #[error(
        "cannot {action} {path}: {source}; the data directory must be on a healthy disk and writable for this user"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "data directory {path} is still in use by another process after {waited}; stop that one, or set another data_dir",
        waited = humantime::format_duration(*waited)
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// For how long its release was waited for.
        waited: Duration,
    },
    /// It was written by a later version.
    #[error(
        "{path} says format {found}, and this version knows formats up to {known}; run the version that wrote it or a newer one, or set another data_dir"
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format.
        found: u64,
        /// The newest that is known.
        known: u64,
    },
    /// It is in an older format, and could not be led to the present one.
    #[error(
        "{path} cannot be led from format {from} to {to} ({step}): {source}; mend that and start again, which goes on where this ended"
    )]
    Migration {
        /// The directory.
        path: PathBuf,
        /// The format that it is in.
        from: u64,
        /// The next.
        to: u64,
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// What tells format and identity cannot be understood.
    #[error(
        "{path} is damaged ({reason}); put it back from a backup, or remove it, which keeps what is cached"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// `layby.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    format: u64,
    instance: String,
}

/// A data directory in use.
#[derive(Debug)]
pub(super) struct Opened {
    /// Holds the lock.
    pub(super) lock: File,
    pub(super) instance_id: String,
    pub(super) boot: BootId,
    /// What a later fetch may go on with.
    pub(super) partials: Vec<Left>,
    /// Bytes of the blobs that are there; `None` where they have to be counted first.
    pub(super) expected: Option<u64>,
}

/// A partial that an earlier life has left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) key: StageKey,
    /// When it was last written to.
    pub(super) since: SystemTime,
    /// Bytes that it takes on disk.
    pub(super) allocated: u64,
}

/// Takes the directory into use, led to the newest of `formats`; waits for `lock_wait` while another process holds it. Partials idle for
/// `abandoned_after` are removed; `None`: none are for their age.
pub(super) async fn open(
    files: &Arc<dyn Files>,
    layout: &Layout,
    formats: Formats,
    clock: &Clock,
    lock_wait: Duration,
    abandoned_after: Option<Duration>,
) -> Result<Opened, OpenError> {
    let give_up = Instant::now() + lock_wait;
    let mut announced = false;
    let lock = loop {
        let (task_files, task_layout) = (Arc::clone(files), layout.clone());
        if let Some(lock) = blocking(layout, move || try_lock(&*task_files, &task_layout)).await? {
            break lock;
        }
        let now = Instant::now();
        if now >= give_up {
            return Err(OpenError::Locked {
                path: layout.root().to_owned(),
                waited: lock_wait,
            });
        }
        if !announced {
            announced = true;
            tracing::warn!(
                path = %layout.root().display(),
                wait_s = lock_wait.as_secs(),
                "data directory is in use by another process; waiting for it to stop"
            );
        }
        tokio::time::sleep_until(give_up.min(now + LOCK_RETRY)).await;
    };
    let (files, task_layout, now) = (Arc::clone(files), layout.clone(), clock.now());
    blocking(layout, move || {
        prepare(&*files, &task_layout, formats, lock, now, abandoned_after)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    layout: &Layout,
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(failed("open", layout.root())(io::Error::other(error))),
    }
}

/// Whether a process holds the data directory. Nothing is made or changed there.
pub fn is_in_use(data_dir: &Path) -> io::Result<bool> {
    let lock = match File::open(Layout::new(data_dir.to_owned()).lock()) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn try_lock(files: &dyn Files, layout: &Layout) -> Result<Option<File>, OpenError> {
    create_root(files, layout.root())?;
    let path = layout.lock();
    files.try_lock(&path).map_err(failed("lock", &path))
}

/// Creates the data directory and those above it, and makes them durable.
fn create_root(files: &dyn Files, dir: &Path) -> Result<(), OpenError> {
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    match files.create_dir(dir) {
        Ok(()) => files.sync_dir(parent).map_err(failed("sync", parent)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent != dir => {
            create_root(files, parent)?;
            files.create_dir(dir).map_err(failed("create", dir))?;
            files.sync_dir(parent).map_err(failed("sync", parent))
        }
        Err(error) => Err(failed("create", dir)(error)),
    }
}

/// Everything that needs the lock.
fn prepare(
    files: &dyn Files,
    layout: &Layout,
    formats: Formats,
    lock: File,
    now: SystemTime,
    abandoned_after: Option<Duration>,
) -> Result<Opened, OpenError> {
    // First of all: what a later version has written is not for this one to tidy.
    let identity = read_identity(files, layout, formats)?;
    let is_new = identity.is_none() && is_missing(files, &layout.blobs_dir())?;
    let mut expected = take_totals(files, layout)?;
    for dir in [layout.blobs_dir(), layout.refs_dir(), layout.partial_dir()] {
        match files.create_dir(&dir) {
            Ok(()) if dir == layout.blobs_dir() => expected = Some(0),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create", &dir)(error));
            }
            _ => {}
        }
    }
    // They may be there from a life that ended before it synced them.
    files
        .sync_dir(layout.root())
        .map_err(failed("sync", layout.root()))?;
    let identity = if let Some(identity) = identity {
        migrate(files, layout, formats, identity)?
    } else {
        sync_above(files, layout.root());
        let instance = format!("{:032x}", fastrand::u128(..));
        let format = if is_new {
            formats.current()
        } else {
            formats.first()
        };
        let identity = migrate(files, layout, formats, Identity { format, instance })?;
        write_identity(files, layout, &identity)?;
        identity
    };
    let partials = leftovers::sort_out(files, layout, now, abandoned_after)?;
    Ok(Opened {
        lock,
        instance_id: identity.instance,
        boot: boot_id(files),
        partials,
        expected,
    })
}

/// Leads the directory to the newest format. Each step is noted before the next, so that one that was cut short is the
/// only one that is run again.
fn migrate(
    files: &dyn Files,
    layout: &Layout,
    formats: Formats,
    mut identity: Identity,
) -> Result<Identity, OpenError> {
    for (step, to) in formats.way_from(identity.format) {
        let from = identity.format;
        tracing::info!(path = %layout.root().display(), from, to, step = step.name, "data directory is migrated");
        (step.run)(files, layout.root()).map_err(|source| OpenError::Migration {
            path: layout.root().to_owned(),
            from,
            to,
            step: step.name,
            source,
        })?;
        identity.format = to;
        write_identity(files, layout, &identity)?;
    }
    Ok(identity)
}

fn is_missing(files: &dyn Files, path: &Path) -> Result<bool, OpenError> {
    match files.stat(path) {
        Ok(_) => Ok(false),
        Err(error) if is_absent(&error) => Ok(true),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// How much the last life has said to have left. It says so once: what comes after is another life's to tell.
fn take_totals(files: &dyn Files, layout: &Layout) -> Result<Option<u64>, OpenError> {
    let path = layout.note(Note::Totals);
    let kept = refs::read(files, &path).map_err(failed("read", &path))?;
    match files.unlink(&path) {
        Err(error) if !is_absent(&error) => return Err(failed("remove", &path)(error)),
        _ => {}
    }
    let kept = kept.and_then(|bytes| serde_json::from_slice::<KeptTotals>(&bytes).ok());
    Ok(kept.map(|kept| kept.bytes))
}

/// Makes the names of the data directory and of those above it durable: an earlier life may have made them, and ended
/// before it synced them. Where an operator made them, it may not be allowed to, and need not.
fn sync_above(files: &dyn Files, root: &Path) {
    for dir in root.ancestors().skip(1) {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        if let Err(error) = files.sync_dir(dir) {
            tracing::debug!(path = %dir.display(), %error, "directory above the data directory not synced");
        }
    }
}

fn boot_id(files: &dyn Files) -> BootId {
    files.boot_id().unwrap_or_else(|error| {
        tracing::debug!(%error, "the boot id is not known; what is resumed will be read back first");
        BootId(fastrand::u128(..).to_le_bytes())
    })
}

fn read_identity(
    files: &dyn Files,
    layout: &Layout,
    formats: Formats,
) -> Result<Option<Identity>, OpenError> {
    let path = layout.identity();
    let damaged = |reason: String| OpenError::Damaged {
        path: path.clone(),
        reason,
    };
    match files.stat(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("look at", &path))?,
    };
    let (file, stat) = open_regular(files, &path)
        .map_err(failed("open", &path))?
        .ok_or_else(|| damaged("it cannot be read as a file".to_owned()))?;
    let len = match usize::try_from(stat.len) {
        Ok(len) if len <= MAX_IDENTITY_LEN => len,
        _ => return Err(damaged(format!("it has {} bytes", stat.len))),
    };
    let mut bytes = vec![0; len];
    files
        .read_at(&file, 0, &mut bytes)
        .map_err(failed("read", &path))?;
    // The format first: a later one may hold anything else.
    let format = serde_json::from_slice::<serde_json::Value>(&bytes)
        .map_err(|error| damaged(error.to_string()))?
        .get("format")
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| damaged("it names no format".to_owned()))?;
    let known = formats.current();
    if format > known {
        return Err(OpenError::NewerFormat {
            path,
            found: format,
            known,
        });
    }
    if format < formats.first() {
        return Err(damaged(format!(
            "it says format {format}, which no version has written"
        )));
    }
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let is_plain = |id: &str| id.bytes().all(|b| b.is_ascii_alphanumeric());
    if identity.instance.is_empty() || !is_plain(&identity.instance) {
        return Err(damaged("its instance is not letters and digits".to_owned()));
    }
    Ok(Some(identity))
}

fn write_identity(
    files: &dyn Files,
    layout: &Layout,
    identity: &Identity,
) -> Result<(), OpenError> {
    let path = layout.identity();
    let temp = layout.partial(PartialId::random());
    let bytes = serde_json::to_vec_pretty(identity).map_err(|error| OpenError::Io {
        action: "write",
        path: path.clone(),
        source: error.into(),
    })?;
    let file = files.create(&temp).map_err(failed("create", &temp))?;
    files
        .write_at(&file, 0, &bytes)
        .and_then(|()| files.sync_data(&file))
        .map_err(failed("write", &temp))?;
    files
        .rename(&temp, &path)
        .map_err(failed("move a file to", &path))?;
    files
        .sync_dir(layout.root())
        .map_err(failed("sync", layout.root()))
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

/// `layby.json` is small; anything larger is not it.
const MAX_IDENTITY_LEN: usize = 64 * 1024;

/// How soon a lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(250);

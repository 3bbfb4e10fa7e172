//! Taking a data directory into use: making it, locking it, knowing its format, tidying up after the last life.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::files::{Files, Kind, open_regular};
use super::layout::{self, Layout, PartialId};

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
        "{path} says format {found}, and this version knows formats up to {FORMAT}; run the version that wrote it or a newer one, or set another data_dir"
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format.
        found: u64,
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
}

/// Takes the directory into use; waits for `lock_wait` while another process holds it.
pub(super) async fn open(
    files: &Arc<dyn Files>,
    layout: &Layout,
    lock_wait: Duration,
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
    let (files, task_layout) = (Arc::clone(files), layout.clone());
    let instance_id = blocking(layout, move || prepare(&*files, &task_layout)).await?;
    Ok(Opened { lock, instance_id })
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

/// Everything that needs the lock. Returns the instance id.
fn prepare(files: &dyn Files, layout: &Layout) -> Result<String, OpenError> {
    // First of all: what a later version has written is not for this one to tidy.
    let identity = read_identity(files, layout)?;
    let partial = layout.partial_dir();
    for dir in [layout.blobs_dir(), layout.refs_dir(), partial.clone()] {
        match files.create_dir(&dir) {
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
    remove_leftovers(files, &partial)?;
    match identity {
        Some(identity) => Ok(identity.instance),
        None => write_identity(files, layout),
    }
}

/// Removes what the last life did not finish.
fn remove_leftovers(files: &dyn Files, partial: &Path) -> Result<(), OpenError> {
    let mut removed = 0_usize;
    for entry in files.list(partial).map_err(failed("list", partial))? {
        let path = partial.join(&entry.name);
        if entry.kind == Kind::File && layout::is_partial(&entry.name) {
            files.unlink(&path).map_err(failed("remove", &path))?;
            removed += 1;
        } else {
            tracing::warn!(path = %path.display(), "not put there by layby; left alone");
        }
    }
    if removed > 0 {
        tracing::info!(
            count = removed,
            "unfinished files of the last run were removed"
        );
    }
    Ok(())
}

fn read_identity(files: &dyn Files, layout: &Layout) -> Result<Option<Identity>, OpenError> {
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
    if format > FORMAT {
        return Err(OpenError::NewerFormat {
            path,
            found: format,
        });
    }
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let is_plain = |id: &str| id.bytes().all(|b| b.is_ascii_alphanumeric());
    if identity.instance.is_empty() || !is_plain(&identity.instance) {
        return Err(damaged("its instance is not letters and digits".to_owned()));
    }
    Ok(Some(identity))
}

fn write_identity(files: &dyn Files, layout: &Layout) -> Result<String, OpenError> {
    let identity = Identity {
        format: FORMAT,
        instance: format!("{:032x}", fastrand::u128(..)),
    };
    let path = layout.identity();
    let temp = layout.partial(PartialId::random());
    let bytes = serde_json::to_vec_pretty(&identity).map_err(|error| OpenError::Io {
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
        .map_err(failed("sync", layout.root()))?;
    Ok(identity.instance)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

/// The format that this version writes.
const FORMAT: u64 = 1;

/// `layby.json` is small; anything larger is not it.
const MAX_IDENTITY_LEN: usize = 64 * 1024;

/// How soon a lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(250);

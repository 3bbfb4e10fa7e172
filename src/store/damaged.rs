//! How much is kept of what was moved aside: it is there for whoever looks into it, and must not fill the disk.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{Files, Kind, at, is_absent};
use super::layout::{self, Layout};

/// Where a faulty blob goes.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) path: PathBuf,
    /// Most bytes that all of them may have.
    pub(super) most: u64,
}

/// Most bytes in `damaged/`, in a store of at most `max_size`.
pub(super) fn most(max_size: Option<u64>) -> u64 {
    max_size.map_or(MOST, |size| (size / 100).min(MOST))
}

/// Moves the file at `target`, `len` bytes long, to `aside`, and removes what was moved there longest ago where there is too
/// much then. Its modification time becomes the time of that. `dirs` are those whose sync makes its new name durable, outer
/// ones first.
pub(super) fn move_to(
    files: &dyn Files,
    layout: &Layout,
    aside: &Aside,
    dirs: &BTreeSet<PathBuf>,
    target: &Path,
    len: u64,
    now: SystemTime,
) -> io::Result<()> {
    make_room(files, layout, aside, len)?;
    exchange_names(files, target, &aside.path, dirs)?;
    if let Err(error) = files.set_modified(&aside.path, now) {
        tracing::debug!(path = %aside.path.display(), %error, "it counts as moved aside at its last use");
    }
    Ok(())
}

/// Takes a file's name away once another is durable, so that the power takes one of them at most. A file system that gives
/// no second name has it moved.
fn exchange_names(
    files: &dyn Files,
    from: &Path,
    to: &Path,
    dirs: &BTreeSet<PathBuf>,
) -> io::Result<()> {
    match files.unlink(to) {
        Err(error) if !is_absent(&error) => return Err(error),
        _ => {}
    }
    match files.link(from, to) {
        Ok(()) => {}
        Err(error) if is_absent(&error) => return Err(error),
        Err(_) => return files.rename(from, to),
    }
    for dir in dirs {
        files.sync_dir(dir)?;
    }
    files.unlink(from)
}

fn make_room(files: &dyn Files, layout: &Layout, aside: &Aside, len: u64) -> io::Result<()> {
    let dir = layout.damaged_dir();
    let entries = match files.list(&dir) {
        Err(error) if is_absent(&error) => Vec::new(),
        other => other.map_err(|error| at("list", &dir, &error))?,
    };
    let ours = entries
        .into_iter()
        .filter(|entry| entry.kind == Kind::File && layout::is_damaged_name(&entry.name));
    let mut kept = Vec::new();
    for path in ours.map(|entry| dir.join(entry.name)) {
        // It will be replaced.
        if path == aside.path {
            continue;
        }
        match files.stat(&path) {
            Ok(stat) => kept.push((stat.modified, path, stat.len)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(at("look at", &path, &error)),
        }
    }
    kept.sort_unstable();
    let lens = kept.iter().map(|(_, _, len)| *len);
    let mut sum = lens.fold(len, u64::saturating_add);
    for (_, path, len) in kept {
        if sum <= aside.most {
            break;
        }
        match files.unlink(&path) {
            Err(error) if !is_absent(&error) => return Err(at("remove", &path, &error)),
            _ => sum = sum.saturating_sub(len),
        }
        tracing::info!(path = %path.display(), "a damaged blob is kept no longer, to make room for another");
    }
    Ok(())
}

/// However large the store may be.
const MOST: u64 = 1 << 30;

//! What earlier lives have left in `partial/`: kept where a later fetch may go on with it, else removed.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Left, OpenError, failed};
use crate::store::files::{Files, Kind, is_absent};
use crate::store::layout::{self, Layout, PartialName};
use crate::store::partial::{StageKey, is_older, logged_len};

/// Removes what nobody can go on with, or has for `abandoned_after`. Returns the rest. What is not ours is left alone.
pub(super) fn sort_out(
    files: &dyn Files,
    layout: &Layout,
    now: SystemTime,
    abandoned_after: Option<Duration>,
) -> Result<Vec<Left>, OpenError> {
    let mut found = Found::list(files, &layout.partial_dir())?;
    let mut kept = Vec::new();
    let is_abandoned = |since| abandoned_after.is_some_and(|age| is_older(since, age, now));
    for key in std::mem::take(&mut found.stages) {
        match look_at(files, layout, key) {
            Ok(Some(left)) if !is_abandoned(left.since) => {
                found.logs.remove(&key);
                kept.push(left);
            }
            other => {
                if let Err(error) = other {
                    tracing::warn!(partial = %key, %error, "an unfinished blob cannot be looked at");
                }
                found.scratch.push(layout.stage(&key));
            }
        }
    }
    // A log goes before its file: one without a log is worth nothing, one with it is trusted.
    let logs = found.logs.iter().map(|key| layout.stage_log(key));
    let doomed: Vec<_> = logs.chain(found.scratch).collect();
    for path in &doomed {
        match files.unlink(path) {
            Err(error) if !is_absent(&error) => return Err(failed("remove", path)(error)),
            _ => {}
        }
    }
    if !(doomed.is_empty() && kept.is_empty()) {
        tracing::info!(
            kept = kept.len(),
            removed = doomed.len(),
            "unfinished files of the last run were sorted out"
        );
    }
    Ok(kept)
}

/// The partial with this key; `None` where nobody can go on with it.
fn look_at(files: &dyn Files, layout: &Layout, key: StageKey) -> io::Result<Option<Left>> {
    let log = layout.stage_log(&key);
    let Some(len) = logged_len(files, &log)? else {
        return Ok(None);
    };
    let stat = files.stat(&layout.stage(&key))?;
    let since = files.stat(&log)?.modified;
    Ok((stat.len <= len).then_some(Left {
        key,
        since,
        allocated: stat.allocated,
    }))
}

/// Our files in `partial/`.
#[derive(Debug, Default)]
struct Found {
    stages: HashSet<StageKey>,
    logs: HashSet<StageKey>,
    scratch: Vec<PathBuf>,
}

impl Found {
    fn list(files: &dyn Files, dir: &Path) -> Result<Self, OpenError> {
        let mut found = Self::default();
        for entry in files.list(dir).map_err(failed("list", dir))? {
            let path = dir.join(&entry.name);
            let name = layout::partial_name(&entry.name);
            match name.filter(|_| entry.kind == Kind::File) {
                Some(PartialName::Scratch) => found.scratch.push(path),
                Some(PartialName::Stage(key)) => _ = found.stages.insert(key),
                Some(PartialName::Log(key)) => _ = found.logs.insert(key),
                None => {
                    tracing::warn!(path = %path.display(), "not put there by layby; left alone");
                }
            }
        }
        Ok(found)
    }
}

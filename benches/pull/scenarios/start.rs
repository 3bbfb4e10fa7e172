//! How soon Layby serves after it was started.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bed::Bed;
use crate::client::{Bodies, Target as Address, pull};
use crate::content::{self, Content};
use crate::origin::Pace;
use crate::peers::{LAYBY, Layby};
use crate::report::{Bound, Report, Series, Target, Unit};

const TAG: &str = "start";

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let blob = bed.blob(1 << 20);
    let manifest = Arc::new(Content::manifest());
    bed.origin.put(manifest.manifest_path(Some(TAG)), &manifest);
    bed.origin.pace(Pace::Free);
    let ask = |target: &Address| -> Result<()> {
        let tag = manifest.manifest_path(Some(TAG));
        pull(target, &tag, &manifest, Bodies::Hash)?;
        pull(target, &blob.blob_path(), &blob, Bodies::Hash)?;
        Ok(())
    };
    let (full, lean) = (bed.folder("full-")?, bed.folder("lean-")?);
    for folder in [&full, &lean] {
        let layby = layby(folder.path()).start(bed)?;
        ask(layby.target())?;
    }
    fill(full.path(), &blob.digest, bed.scale.stored)?;
    let start = |folder: &Path| -> Result<f64> {
        bed.settle()?;
        let started = Instant::now();
        let layby = layby(folder).start(bed)?;
        ask(layby.target())?;
        let time: Duration = started.elapsed();
        Ok(time.as_secs_f64() * 1e3)
    };
    let (mut with_full, mut with_lean) = (Vec::new(), Vec::new());
    for _ in 0..bed.scale.pairs {
        with_full.push(start(full.path())?);
        with_lean.push(start(lean.path())?);
    }
    let series = [(LAYBY, with_full), ("with one blob", with_lean)];
    let series = series.map(|(name, values)| Series { name, values });
    let what = format!("{} blobs, first tag and blob", bed.scale.stored);
    let most = [("", Target::value(Bound::AtMost(100.0)))];
    report.add("start", &what, Unit::Milliseconds, &series, &most);
    Ok(())
}

fn layby(data: &Path) -> Layby {
    Layby {
        data: Some(data.to_owned()),
        ..Layby::default()
    }
}

/// Lays out `count` small blobs and their proofs of membership as those of the blob `like` are, which is there already.
fn fill(data: &Path, like: &str, count: usize) -> Result<()> {
    let like = like.trim_start_matches("sha256:");
    let mut found = Vec::new();
    search(data, like, &mut found)?;
    if found.len() != 2 {
        return Err(format!("a blob and its proof should be two files: {found:?}").into());
    }
    for number in 0..count {
        let bytes = format!("blob {number}");
        let digest = content::digest(bytes.as_bytes());
        let hex = digest.trim_start_matches("sha256:");
        for file in &found {
            let text = file.to_string_lossy().replace(like, hex);
            let fan = (format!("/{}/", &like[..2]), format!("/{}/", &hex[..2]));
            let file = PathBuf::from(text.replace(&fan.0, &fan.1));
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            if file.starts_with(data.join("blobs")) {
                fs::write(&file, &bytes)?;
            } else {
                File::create(&file)?;
            }
        }
    }
    Ok(())
}

/// Files below `folder` with `name` in theirs.
fn search(folder: &Path, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            search(&entry.path(), name, found)?;
        } else if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        }
    }
    Ok(())
}

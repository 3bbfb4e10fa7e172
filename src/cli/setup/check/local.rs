//! The data directory: whether it can be used, and the room on its file system.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::report::Report;
use crate::cli::table::size;
use crate::config::{Config, MinFree};

const WHAT: &str = "data directory";

/// Looks at the data directory of `config`.
pub(super) fn data_directory(config: &Config, report: &mut Report) {
    let path = &config.data_dir;
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            return report.fail(
                WHAT,
                format!("{shown} is no directory"),
                "name another with data_dir",
            );
        }
        Ok(_) => usable(path, report),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.warn(
                WHAT,
                format!("{shown} is not there yet"),
                "the first `layby serve` makes it",
            );
        }
        Err(error) => {
            return report.fail(
                WHAT,
                format!("{shown} cannot be looked at: {error}"),
                "run this as the user that Layby runs as",
            );
        }
    }
    let existing = path.ancestors().find(|path| fs::metadata(path).is_ok());
    match existing.map(statvfs) {
        Some(Ok(disk)) => {
            let unit = disk.f_frsize;
            let (total, free) = (disk.f_blocks * unit, disk.f_bavail * unit);
            room(config, total, free, report);
        }
        Some(Err(error)) => {
            report.fail(
                WHAT,
                format!("its file system cannot be looked at: {error}"),
                "",
            );
        }
        None => {}
    }
}

fn usable(path: &Path, report: &mut Report) {
    let shown = path.display();
    match access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => report.ok(WHAT, format!("{shown} can be used")),
        Err(error) => report.warn(
            WHAT,
            format!("{shown} cannot be used by this user: {error}"),
            "run this as the user that Layby runs as, or give the directory to it",
        ),
    }
}

/// Compares what the file system has with the limits.
fn room(config: &Config, total: u64, free: u64, report: &mut Report) {
    const WHAT: &str = "room on the disk";
    let least = match config.cache.min_free {
        MinFree::Bytes(bytes) => bytes,
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a file system need not be exact"
        )]
        MinFree::Share(share) => (total as f64 * share) as u64,
    };
    let found = format!(
        "{} of {} are free; [cache] min_free wants {}",
        size(free),
        size(total),
        size(least)
    );
    if free < least {
        let advice = "what was used least is evicted for it, and what is new passes through uncached where that is not \
                      enough: free some space, lower min_free, or move data_dir";
        return report.warn(WHAT, found, advice);
    }
    match config.cache.max_size {
        Some(most) if most > total => report.warn(
            WHAT,
            format!(
                "[cache] max_size is {}, and the file system has {}",
                size(most),
                size(total)
            ),
            "lower max_size; until then min_free is the limit",
        ),
        _ => report.ok(WHAT, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;
    use crate::config::Overrides;

    const GIB: u64 = 1 << 30;

    fn verdict(cache: &str, total: u64, free: u64) -> (Verdict, String) {
        let config = Config::from_toml(&format!("[cache]\n{cache}"), &Overrides::default());
        let mut report = Report::default();
        room(&config.unwrap(), total, free, &mut report);
        let finding = report.findings.remove(0);
        (finding.verdict, finding.found)
    }

    #[test]
    fn room_is_compared_with_the_limits() {
        let (is, found) = verdict("", 100 * GIB, 20 * GIB);
        assert_eq!(is, Verdict::Ok);
        assert_eq!(
            found,
            "20.0 GiB of 100.0 GiB are free; [cache] min_free wants 10.0 GiB"
        );
        assert_eq!(verdict("", 100 * GIB, 9 * GIB).0, Verdict::Warn);
        assert_eq!(
            verdict("min_free = \"1GiB\"", 100 * GIB, 9 * GIB).0,
            Verdict::Ok
        );
        assert_eq!(
            verdict("max_size = \"101GiB\"", 100 * GIB, 50 * GIB).0,
            Verdict::Warn
        );
    }

    #[test]
    fn a_directory_is_there_or_made_or_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let look = |path: &Path| {
            let mut config = Config::from_toml("", &Overrides::default()).unwrap();
            config.data_dir = path.to_owned();
            let mut report = Report::default();
            data_directory(&config, &mut report);
            report.findings.remove(0).verdict
        };
        assert_eq!(look(folder.path()), Verdict::Ok);
        assert_eq!(look(&folder.path().join("a/b")), Verdict::Warn);
        assert_eq!(look(&file), Verdict::Fail);
    }
}

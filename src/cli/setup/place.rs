//! Putting a client's file in its place: what would change, and the change itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Gid, Uid};
use similar::TextDiff;

use super::piece::{Piece, Refusal};

/// A file as it is and as it should be.
#[derive(Debug)]
pub(super) struct Change {
    /// The file itself, where the client's path is a link to it.
    path: PathBuf,
    old: Option<String>,
    new: String,
}

/// Why a file does not become what it should be, or that is not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The system does not let us.
    #[error("{path} cannot be {action}: {source}; {}", hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be added to.
    #[error("{path} is left as it is: {why}")]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
        /// What it should say.
        text: String,
    },
    /// The files are what they should be, but nobody was told.
    #[error("all is done, but standard output takes no more: {0}")]
    Output(io::Error),
    /// Somebody else wrote it meanwhile.
    #[error(
        "{0} was changed by somebody else at the same time; see what it says, and run this again"
    )]
    Moved(PathBuf),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run this as root, or as the owner of the file",
        io::ErrorKind::InvalidData => "it is not text",
        _ => "see to it, and run this again",
    }
}

/// What a file holds; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Failure::Io {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

impl Change {
    /// What `piece` makes of the file at `path`.
    pub(super) fn of(piece: &Piece, path: &Path) -> Result<Self, Failure> {
        let refused = |path: PathBuf, why: String| Failure::Refused {
            path,
            why,
            text: piece.text.clone(),
        };
        // A link stays one: what it points at is changed.
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_ok() {
                    let why = "it is a link to a file that is not there; make that file, or remove the link";
                    return Err(refused(path.to_owned(), why.to_owned()));
                }
                path.to_owned()
            }
            Err(source) => {
                return Err(Failure::Io {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let old = read(&path)?;
        match piece.merged(old.as_deref()) {
            Ok(new) => Ok(Self { path, old, new }),
            Err(Refusal { why }) => Err(refused(path, why)),
        }
    }

    /// Whether anything would become different.
    pub(super) fn is_needed(&self) -> bool {
        self.old.as_ref() != Some(&self.new)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The difference, as `diff -u` shows it.
    pub(super) fn difference(&self) -> String {
        let name = self.path.display().to_string();
        let old = self.old.as_deref().unwrap_or_default();
        let from = if self.old.is_some() {
            &name
        } else {
            "/dev/null"
        };
        TextDiff::from_lines(old, &self.new)
            .unified_diff()
            .header(from, &name)
            .to_string()
    }

    /// Writes it. Where the file was, its old form stays beside it; that path is returned. At every moment the file is
    /// whole: the old one or the new one.
    pub(super) fn write(&self, now: Timestamp) -> Result<Option<PathBuf>, Failure> {
        let failed = |action, path: &Path, source| Failure::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let folder = match self.path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => Path::new("/"),
        };
        fs::create_dir_all(folder).map_err(|error| failed("made", folder, error))?;
        // A file of this run, whatever others have put there or are about to.
        let temporary = beside(&self.path, &format!("layby-new-{:016x}", fastrand::u64(..)));
        let mut file =
            File::create_new(&temporary).map_err(|error| failed("made", &temporary, error))?;
        if let Err(error) = self.fill(&mut file) {
            let _ = fs::remove_file(&temporary);
            return Err(failed("written", &temporary, error));
        }
        let replaced = self.replace(&temporary, folder, now);
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        replaced
    }

    /// The new form, on disk, with mode and owner of the old one.
    fn fill(&self, file: &mut File) -> io::Result<()> {
        if self.old.is_some() {
            let like = fs::metadata(&self.path)?;
            let own = file.metadata()?;
            if (like.uid(), like.gid()) != (own.uid(), own.gid()) {
                let (uid, gid) = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
                rustix::fs::fchown(&*file, Some(uid), Some(gid))?;
            }
            file.set_permissions(like.permissions())?;
        }
        file.write_all(self.new.as_bytes())?;
        file.sync_all()
    }

    fn replace(
        &self,
        temporary: &Path,
        folder: &Path,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, Failure> {
        let failed = |action, path: &Path, source| Failure::Io {
            action,
            path: path.to_owned(),
            source,
        };
        if read(&self.path)? != self.old {
            return Err(Failure::Moved(self.path.clone()));
        }
        let backup = match self.old {
            Some(_) => Some(self.back_up(now)?),
            None => None,
        };
        fs::rename(temporary, &self.path).map_err(|error| failed("replaced", &self.path, error))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| failed("written", folder, error))?;
        Ok(backup)
    }

    /// The old file itself under one more name: with its mode, owner and times.
    fn back_up(&self, now: Timestamp) -> Result<PathBuf, Failure> {
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        for number in 0..MOST_BACKUPS {
            let suffix = match number {
                0 => format!("bak-{stamp}"),
                _ => format!("bak-{stamp}-{number}"),
            };
            let backup = beside(&self.path, &suffix);
            match fs::hard_link(&self.path, &backup) {
                Ok(()) => return Ok(backup),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(Failure::Io {
                        action: "made",
                        path: backup,
                        source,
                    });
                }
            }
        }
        Err(Failure::Moved(self.path.clone()))
    }
}

/// The files in `folder` whose names end in `.conf`, in order of their names; none where there is no folder.
pub(super) fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |source| Failure::Io {
        action: "read",
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "conf") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `path` with something behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Backups of one second.
const MOST_BACKUPS: usize = 100;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn piece(text: &str) -> Piece {
        Piece::new("/etc/x", text.to_owned(), |old| {
            if old.contains("no") {
                return Err(Refusal::new("it says no"));
            }
            let more = if old.contains("more") { "" } else { "more\n" };
            Ok(format!("{old}{more}"))
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_old_form_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let change = Change::of(&piece("new\n"), &path).unwrap();
        assert!(change.is_needed());
        assert!(change.difference().contains("\n old\n+more\n"));
        let backup = change.write(Timestamp::UNIX_EPOCH).unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\nmore\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(backup).unwrap(), "old\n");
        assert_eq!(names(folder.path()), ["x", "x.bak-19700101T000000Z"]);
        assert!(!Change::of(&piece("new\n"), &path).unwrap().is_needed());
    }

    #[test]
    fn two_backups_of_one_second_have_two_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for text in ["a\n", "b\n"] {
            fs::write(&path, text).unwrap();
            let change = Change::of(&piece(""), &path).unwrap();
            change.write(Timestamp::UNIX_EPOCH).unwrap();
            // Written anew by somebody: another file under the same name.
            fs::remove_file(&path).unwrap();
        }
        let backup = |number: &str| {
            let name = format!("x.bak-19700101T000000Z{number}");
            fs::read_to_string(folder.path().join(name)).unwrap()
        };
        assert_eq!((backup(""), backup("-1")), ("a\n".into(), "b\n".into()));
    }

    #[test]
    fn folders_are_made_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/x");
        let change = Change::of(&piece("new\n"), &path).unwrap();
        assert!(change.difference().starts_with("--- /dev/null\n"));
        assert_eq!(change.write(Timestamp::UNIX_EPOCH).unwrap(), None);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let change = Change::of(&piece(""), &link).unwrap();
        change.write(Timestamp::UNIX_EPOCH).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\nmore\n");
    }

    #[test]
    fn a_link_to_nothing_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink(folder.path().join("gone"), &link).unwrap();
        let error = Change::of(&piece("new\n"), &link).unwrap_err();
        assert!(matches!(error, Failure::Refused { .. }), "{error}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Change::of(&piece("new\n"), &file.join("x")).unwrap_err();
        assert!(matches!(error, Failure::Io { .. }), "{error}");
        assert_eq!(names(folder.path()), ["file", "link"]);
    }

    #[test]
    fn a_temporary_file_of_another_run_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        fs::write(&theirs, "theirs").unwrap();
        symlink(&theirs, folder.path().join("x.layby-new")).unwrap();
        let path = folder.path().join("x");
        let change = Change::of(&piece("new\n"), &path).unwrap();
        change.write(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
        assert_eq!(names(folder.path()), ["theirs", "x", "x.layby-new"]);
    }

    #[test]
    fn a_file_that_changed_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old\n").unwrap();
        let change = Change::of(&piece(""), &path).unwrap();
        fs::write(&path, "theirs\n").unwrap();
        let error = change.write(Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, Failure::Moved(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs\n");
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn a_refusal_says_what_the_file_should_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "no\n").unwrap();
        match Change::of(&piece("new\n"), &path).unwrap_err() {
            Failure::Refused { why, text, .. } => {
                assert_eq!((why.as_str(), text.as_str()), ("it says no", "new\n"));
            }
            other => panic!("{other}"),
        }
    }
}

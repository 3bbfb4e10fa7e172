//! Walking through the repositories in order, from any point on, one directory in memory at a time.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::config::UpstreamName;
use crate::oci::RepoName;

use super::files::{Entry, Kind, at, is_absent};
use super::{Store, layout};

/// What a walk meets.
pub(super) struct Visitor<'a> {
    repository: &'a mut dyn FnMut(UpstreamName, RepoName) -> io::Result<ControlFlow<()>>,
    passed_over: &'a mut dyn FnMut(PassedOver) -> io::Result<()>,
}

/// What a walk through the repositories does not go into.
#[derive(Debug)]
pub enum PassedOver {
    /// It is not the store's.
    Foreign(PathBuf),
    /// A directory that cannot be listed, and why; the error names it too.
    Unreadable(PathBuf, io::Error),
}

/// How the walk goes on.
type Step = io::Result<ControlFlow<()>>;

impl Store {
    /// Visits every repository that has a record, from `from` on, it included, until `visit` breaks off. In order of
    /// upstream and of the components of the name: `a`, `a/b`, `a-b`. `foreign` is told what is not the store's.
    /// Blocks for as long as they are many.
    pub fn each_repository(
        &self,
        from: Option<(&UpstreamName, &RepoName)>,
        visit: &mut dyn FnMut(UpstreamName, RepoName) -> io::Result<ControlFlow<()>>,
        foreign: &mut dyn FnMut(PathBuf),
    ) -> io::Result<()> {
        let mut passed_over = |what| match what {
            PassedOver::Foreign(path) => {
                foreign(path);
                Ok(())
            }
            PassedOver::Unreadable(_, error) => Err(error),
        };
        self.each_readable_repository(from, visit, &mut passed_over)
    }

    /// The same, past what cannot be read, as far as `passed_over` allows it.
    pub fn each_readable_repository(
        &self,
        from: Option<(&UpstreamName, &RepoName)>,
        visit: &mut dyn FnMut(UpstreamName, RepoName) -> io::Result<ControlFlow<()>>,
        passed_over: &mut dyn FnMut(PassedOver) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut visitor = Visitor {
            repository: visit,
            passed_over,
        };
        let root = self.layout.refs_dir();
        for entry in self.readable(&root, &mut visitor)? {
            let path = root.join(&entry.name);
            let upstream = entry.name.to_str().and_then(|name| name.parse().ok());
            let Some(upstream) = upstream.filter(|_| entry.kind == Kind::Directory) else {
                (visitor.passed_over)(PassedOver::Foreign(path))?;
                continue;
            };
            let floor: Vec<&str> = match from {
                Some((first, _)) if upstream < *first => continue,
                Some((first, name)) if upstream == *first => name.components().collect(),
                _ => Vec::new(),
            };
            if self
                .descend(&path, &upstream, None, &floor, &mut visitor)?
                .is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Visits the repository `name`, whose directory is `dir`, and those below it. `floor` is what is left of the first
    /// wanted name; empty: all are wanted.
    fn descend(
        &self,
        dir: &Path,
        upstream: &UpstreamName,
        name: Option<&RepoName>,
        floor: &[&str],
        visitor: &mut Visitor<'_>,
    ) -> Step {
        let mut below = Vec::new();
        let mut has_records = false;
        for entry in self.readable(dir, visitor)? {
            let text = entry.name.to_str().unwrap_or_default();
            if layout::is_record_folder(text) && entry.kind == Kind::Directory {
                has_records = true;
                continue;
            }
            let longer: Result<RepoName, _> = match name {
                Some(name) => format!("{name}/{text}").parse(),
                None => text.parse(),
            };
            match longer {
                // A name's length is bounded, and so is the depth.
                Ok(longer) if entry.kind == Kind::Directory => below.push((entry.name, longer)),
                _ => (visitor.passed_over)(PassedOver::Foreign(dir.join(&entry.name)))?,
            }
        }
        if let Some(name) = name.filter(|_| has_records && floor.is_empty())
            && (visitor.repository)(upstream.clone(), name.clone())?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        for (component, longer) in below {
            let floor = match floor {
                [first, rest @ ..] => match component.to_str().unwrap_or_default().cmp(first) {
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal => rest,
                    std::cmp::Ordering::Greater => &[],
                },
                [] => &[],
            };
            let dir = dir.join(&component);
            if self
                .descend(&dir, upstream, Some(&longer), floor, visitor)?
                .is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What the names of all repositories at or below this directory begin with, the upstream's key and a slash before them;
    /// nothing for all of them.
    pub fn repositories_below(&self, dir: &Path) -> String {
        let below = dir.strip_prefix(self.layout.refs_dir());
        below
            .unwrap_or(Path::new(""))
            .to_string_lossy()
            .into_owned()
    }

    /// What lies in the data directory itself without being the store's.
    pub fn foreign_in_root(&self) -> io::Result<Vec<PathBuf>> {
        let root = self.layout.root();
        let entries = self.sorted(root)?;
        let foreign = entries
            .into_iter()
            .filter(|entry| !layout::is_of_root(&entry.name));
        Ok(foreign.map(|entry| root.join(entry.name)).collect())
    }

    /// Entries of a directory, in order; none where it is passed over.
    fn readable(&self, dir: &Path, visitor: &mut Visitor<'_>) -> io::Result<Vec<Entry>> {
        match self.sorted(dir) {
            Ok(entries) => Ok(entries),
            Err(error) => {
                (visitor.passed_over)(PassedOver::Unreadable(dir.to_owned(), error))?;
                Ok(Vec::new())
            }
        }
    }

    /// Entries of a directory that may be missing, in order.
    pub(super) fn sorted(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = match self.files.list(dir) {
            Err(error) if is_absent(&error) => Vec::new(),
            other => other.map_err(|error| at("list", dir, &error))?,
        };
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

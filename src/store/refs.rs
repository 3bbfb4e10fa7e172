//! Small records as files: their keys, reading and listing them. Writing them is the committer's.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::UpstreamName;
use crate::oci::{Digest, RepoName, Tag};

use super::files::{Entries, Entry, Files, Kind, at, is_absent, open_regular};
use super::layout::{self, Layout};

/// Names a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RefKey {
    /// The upstream it belongs to.
    pub upstream: UpstreamName,
    /// The repository there.
    pub repository: RepoName,
    /// What it is about.
    pub kind: RefKind,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RefKind {
    /// What a tag points at.
    Tag(Tag),
    /// A manifest: that the repository has it, and what is known of it.
    Manifest(Digest),
    /// A blob: that the repository has it.
    Blob(Digest),
    /// An answer to a list, by any text that tells it from others.
    List(String),
}

/// The kinds of records that can be listed: those whose file name is their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefKindName {
    /// [`RefKind::Tag`].
    Tag,
    /// [`RefKind::Manifest`].
    Manifest,
    /// [`RefKind::Blob`].
    Blob,
}

/// A walk through the records of one kind of a repository, a bounded number of them in memory at a time.
pub struct RefWalk {
    upstream: UpstreamName,
    repository: RepoName,
    kind: RefKindName,
    dir: PathBuf,
    /// `None` where there is nothing (more) to read.
    entries: Option<Entries>,
}

impl RefWalk {
    pub(super) fn begin(
        files: &dyn Files,
        layout: &Layout,
        upstream: &UpstreamName,
        repository: &RepoName,
        kind: RefKindName,
    ) -> io::Result<Self> {
        let dir = layout.kind_dir(upstream, repository, kind);
        let entries = match files.entries(&dir) {
            Err(error) if is_absent(&error) => None,
            other => Some(other.map_err(|error| at("list", &dir, &error))?),
        };
        Ok(Self {
            upstream: upstream.clone(),
            repository: repository.clone(),
            kind,
            dir,
            entries,
        })
    }

    /// The next records, `most` of them at most, in no order; none at the end. What is no record is passed over. Blocks
    /// shortly.
    pub fn next(&mut self, most: usize) -> io::Result<Vec<RefKey>> {
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(entries) = &mut self.entries
        {
            match entries.next() {
                Some(Ok(entry)) => {
                    let key = key(
                        &self.upstream,
                        &self.repository,
                        self.kind,
                        &self.dir,
                        &entry,
                    );
                    keys.extend(key);
                }
                Some(Err(error)) => {
                    self.entries = None;
                    return Err(at("list", &self.dir, &error));
                }
                None => self.entries = None,
            }
        }
        Ok(keys)
    }
}

impl fmt::Debug for RefWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefWalk")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Most bytes of a record.
pub const MAX_REF_LEN: u64 = 8 << 20;

/// The record at `path`. What is there but cannot be one is logged and counts as missing.
pub(super) fn read(files: &dyn Files, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some((file, stat)) = open_regular(files, path)? else {
        return Ok(None);
    };
    let len = match usize::try_from(stat.len) {
        Ok(len) if stat.len <= MAX_REF_LEN => len,
        _ => {
            tracing::warn!(
                path = %path.display(),
                size_bytes = stat.len,
                "larger than any record; it is passed over, remove it"
            );
            return Ok(None);
        }
    };
    let mut bytes = vec![0; len];
    match files.read_at(&file, 0, &mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "record cannot be read; it is fetched anew, check the disk"
            );
            Ok(None)
        }
    }
}

/// The records of one kind of a repository, in no order. What is no record is passed over.
pub(super) fn list(
    files: &dyn Files,
    layout: &Layout,
    upstream: &UpstreamName,
    repository: &RepoName,
    kind: RefKindName,
) -> io::Result<Vec<RefKey>> {
    let dir = layout.kind_dir(upstream, repository, kind);
    let entries = entries(files, &dir)?;
    let keys = entries
        .iter()
        .filter_map(|entry| key(upstream, repository, kind, &dir, entry));
    Ok(keys.collect())
}

/// The key of the record that is this entry of a repository's directory of this kind, if it is one.
fn key(
    upstream: &UpstreamName,
    repository: &RepoName,
    kind: RefKindName,
    dir: &Path,
    entry: &Entry,
) -> Option<RefKey> {
    let parsed = layout::record_kind(kind, &entry.name);
    let Some(kind) = parsed.filter(|_| entry.kind == Kind::File) else {
        foreign(dir, entry);
        return None;
    };
    Some(RefKey {
        upstream: upstream.clone(),
        repository: repository.clone(),
        kind,
    })
}

/// Every repository that has a record, in no order.
pub(super) fn repositories(
    files: &dyn Files,
    layout: &Layout,
) -> io::Result<Vec<(UpstreamName, RepoName)>> {
    let mut found = Vec::new();
    let root = layout.refs_dir();
    for entry in entries(files, &root)? {
        let parsed = entry.name.to_str().and_then(|name| name.parse().ok());
        match parsed.filter(|_| entry.kind == Kind::Directory) {
            Some(upstream) => walk(files, root.join(&entry.name), &upstream, &mut found)?,
            None => foreign(&root, &entry),
        }
    }
    Ok(found)
}

/// Collects the repositories of one upstream, whose directory is `root`.
fn walk(
    files: &dyn Files,
    root: PathBuf,
    upstream: &UpstreamName,
    found: &mut Vec<(UpstreamName, RepoName)>,
) -> io::Result<()> {
    let mut to_visit: Vec<(PathBuf, Option<RepoName>)> = vec![(root, None)];
    while let Some((dir, repository)) = to_visit.pop() {
        let mut has_records = false;
        for entry in entries(files, &dir)? {
            let name = entry.name.to_str().unwrap_or_default();
            if layout::is_record_folder(name) && entry.kind == Kind::Directory {
                has_records = true;
                continue;
            }
            let longer = match &repository {
                Some(parent) => format!("{parent}/{name}").parse(),
                None => name.parse(),
            };
            match longer {
                // A name's length is bounded, and so is the depth.
                Ok(longer) if entry.kind == Kind::Directory => {
                    to_visit.push((dir.join(&entry.name), Some(longer)));
                }
                _ => foreign(&dir, &entry),
            }
        }
        if let Some(repository) = repository.filter(|_| has_records) {
            found.push((upstream.clone(), repository));
        }
    }
    Ok(())
}

/// Entries of a directory that may be missing.
fn entries(files: &dyn Files, dir: &Path) -> io::Result<Vec<Entry>> {
    match files.list(dir) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        other => other.map_err(|error| at("list", dir, &error)),
    }
}

fn foreign(dir: &Path, entry: &Entry) {
    tracing::debug!(
        path = %dir.join(&entry.name).display(),
        "not one of our records; it is passed over"
    );
}

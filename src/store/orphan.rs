//! Proofs of membership whose content is not stored any more. Whoever has them go has only looked; the committer judges,
//! since it alone knows what is written and committed in between.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::oci::Digest;

use super::change::{Change, Seen};
use super::files::{FileId, Files, Kind, Stat, at, is_absent};
use super::partial::{Shelf, StageKey};
use super::usage::Usage;
use super::{RefKey, RefKind, Store};

/// A record as it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefLook {
    /// When it was written.
    pub written: SystemTime,
    file: FileId,
}

/// What must hold for a proof to be removed.
#[derive(Debug)]
pub(super) struct Orphan {
    seen: RefLook,
    content: Content,
    /// Where its content is written to while it is fetched.
    stage: Option<StageKey>,
}

/// What a proof is about.
#[derive(Debug)]
struct Content {
    digest: Digest,
    /// Where it would be stored; `None` for what never is.
    path: Option<PathBuf>,
}

impl RefLook {
    fn of(stat: &Stat) -> Self {
        Self {
            written: stat.modified,
            file: stat.id,
        }
    }
}

impl Orphan {
    /// Whether the record at `target` is the one that was seen, and what it is about is neither stored nor on its way.
    pub(super) fn still_is(
        &self,
        files: &dyn Files,
        usage: &Usage,
        shelf: &Shelf,
        target: &Path,
    ) -> io::Result<bool> {
        // Before the look at what is stored: a stage is let go of when it is that.
        if self.stage.is_some_and(|stage| shelf.is_held(&stage)) {
            return Ok(false);
        }
        let is_seen = look(files, target)? == Some(self.seen);
        Ok(is_seen && self.content.is_gone(files, usage)?)
    }
}

impl Content {
    /// Whether it is not stored, as far as both memory and disk know. A file that only cannot be reached is not gone: its
    /// directory may be unreadable, or something else in its place, until somebody mends that.
    fn is_gone(&self, files: &dyn Files, usage: &Usage) -> io::Result<bool> {
        if usage.len_of(&self.digest).is_some() {
            return Ok(false);
        }
        let Some(path) = &self.path else {
            return Ok(true);
        };
        match files.stat(path) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(at("look at", path, &error)),
        }
    }
}

impl Store {
    /// The record, if it proves that a repository has what is not stored here. Blocks shortly.
    pub fn look_at_orphan(&self, key: &RefKey) -> io::Result<Option<RefLook>> {
        let Some(content) = self.content_of(key) else {
            return Ok(None);
        };
        if !content.is_gone(&*self.files, &self.usage)? {
            return Ok(None);
        }
        look(&*self.files, &self.layout.record(key))
    }

    /// Removes a record that [`Store::look_at_orphan`] gave, and the directories that it leaves empty, unless the record was
    /// written again since, or what it is about was stored or is being fetched into `stage`; whether it did.
    pub async fn remove_orphan(
        &self,
        key: &RefKey,
        seen: RefLook,
        stage: Option<StageKey>,
    ) -> io::Result<bool> {
        let Some(content) = self.content_of(key) else {
            return Ok(false);
        };
        let change = Change::RemoveRecord {
            target: self.layout.record(key),
            only_if: Some(Seen::Orphan(Orphan {
                seen,
                content,
                stage,
            })),
        };
        self.committer.make(change).await
    }

    fn content_of(&self, key: &RefKey) -> Option<Content> {
        match &key.kind {
            RefKind::Manifest(digest) | RefKind::Blob(digest) => Some(Content {
                digest: digest.clone(),
                path: self.layout.blob(digest),
            }),
            RefKind::Tag(_) | RefKind::List(_) => None,
        }
    }
}

fn look(files: &dyn Files, record: &Path) -> io::Result<Option<RefLook>> {
    match files.stat(record) {
        Ok(stat) => Ok((stat.kind == Kind::File).then(|| RefLook::of(&stat))),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(at("look at", record, &error)),
    }
}

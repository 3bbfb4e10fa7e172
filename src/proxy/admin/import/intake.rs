//! Blobs of an archive on their way into the store: each compared with its digest, and written only where it is not here.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::bundle::{Fault, Member, Members, Stream};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, ManifestInfo, MediaType};
use crate::proxy::ports::MAX_MANIFEST;
use crate::store::{BlobHold, RoomError, StagedBlob, Store};

use super::halt::{Halt, no_room};
use super::report::ImportReport;

/// What has come of an archive so far.
pub(super) struct Intake {
    pub(super) store: Arc<Store>,
    /// For the changes that it makes from its thread.
    pub(super) runtime: Handle,
    /// What is to come, as far as index and manifests say.
    expected: HashMap<Digest, Expected>,
    /// Manifests that were announced and have not been read.
    pending: HashSet<Digest>,
    /// Whether it is known which images there are.
    is_listed: bool,
    has_checked_room: bool,
    taken: HashMap<Digest, u64>,
    /// What it needs of what came before it.
    borrowed: HashMap<Digest, u64>,
    /// Written and not yet committed.
    staged: Vec<Staged>,
    /// What this import has brought into the store.
    new: Vec<Brought>,
    /// Nothing of it is evicted meanwhile.
    holds: Vec<BlobHold>,
    buffer: Vec<u8>,
}

/// What is said of a blob that is to come.
#[derive(Debug, Clone)]
struct Expected {
    size: u64,
    kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A manifest, of this type if one is said.
    Manifest(Option<MediaType>),
    Blob,
}

impl Expected {
    fn is_manifest(&self) -> bool {
        matches!(self.kind, Kind::Manifest(_))
    }
}

struct Staged {
    stage: StagedBlob,
    digest: Digest,
    len: u64,
}

/// A blob that this import, and nobody else, has brought into the store.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) digest: Digest,
    /// When that was. To the store, its last use; a later one is somebody else's.
    pub(super) at: SystemTime,
}

/// A file that was taken in.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) digest: Digest,
    pub(super) len: u64,
    /// Whether it is compressed, as its first bytes show.
    pub(super) is_gzip: bool,
}

impl Intake {
    pub(super) fn new(store: Arc<Store>, runtime: Handle) -> Self {
        Self {
            store,
            runtime,
            expected: HashMap::new(),
            pending: HashSet::new(),
            is_listed: false,
            has_checked_room: false,
            taken: HashMap::new(),
            borrowed: HashMap::new(),
            staged: Vec::new(),
            new: Vec::new(),
            holds: Vec::new(),
            buffer: vec![0; PIECE],
        }
    }

    /// Announces the images.
    pub(super) fn announce<'a>(
        &mut self,
        tops: impl Iterator<Item = (&'a Digest, u64, Option<&'a str>)>,
    ) {
        self.is_listed = true;
        for (digest, size, media_type) in tops {
            self.expect_manifest(digest, size, media_type);
        }
    }

    fn expect_manifest(&mut self, digest: &Digest, size: u64, media_type: Option<&str>) {
        let expected = Expected {
            size,
            kind: Kind::Manifest(media_type.and_then(MediaType::parse)),
        };
        let before = self.expected.insert(digest.clone(), expected);
        if !before.is_some_and(|before| before.is_manifest()) {
            // One that came before it was announced was not read, and is not any more: whatever comes may be its.
            self.pending.insert(digest.clone());
        }
    }

    /// Whether this archive has brought the blob.
    pub(super) fn len_of(&self, digest: &Digest) -> Option<u64> {
        self.taken.get(digest).copied()
    }

    /// The length of a blob that came earlier, which stays from now on.
    pub(super) fn borrow(&mut self, digest: &Digest) -> io::Result<Option<u64>> {
        if let Some(len) = self.borrowed.get(digest) {
            return Ok(Some(*len));
        }
        // Before it is looked for.
        let hold = self.store.hold_blob(digest);
        let len = self.store.blob_len(digest)?;
        if let Some(len) = len {
            self.holds.extend(hold);
            self.borrowed.insert(digest.clone(), len);
        }
        Ok(len)
    }

    /// Bytes and number of blobs that have come.
    pub(super) fn count(&self, report: &mut ImportReport) {
        let new: HashSet<&Digest> = self.new.iter().map(|one| &one.digest).collect();
        for (digest, len) in &self.taken {
            let (blobs, bytes) = if new.contains(digest) {
                (&mut report.new_blobs, &mut report.new_bytes)
            } else {
                (&mut report.present_blobs, &mut report.present_bytes)
            };
            *blobs = blobs.saturating_add(1);
            *bytes = bytes.saturating_add(*len);
        }
    }

    /// What this import has committed, and holds no longer.
    pub(super) fn give_up(&mut self) -> Vec<Brought> {
        for staged in self.staged.drain(..) {
            staged.stage.discard();
        }
        self.borrowed.clear();
        self.holds.clear();
        std::mem::take(&mut self.new)
    }

    /// What it has committed.
    pub(super) fn new_blobs(&self) -> &[Brought] {
        &self.new
    }

    /// Takes in the present file; `None` where no image needs it. `go_on` hears of the bytes read.
    pub(super) fn take<R: Read>(
        &mut self,
        members: &mut Members<Stream<R>>,
        member: &Member,
        len: u64,
        go_on: &mut dyn FnMut(u64) -> Result<(), Halt>,
    ) -> Result<Option<Taken>, Halt> {
        let promised = member.promised();
        let expected = promised
            .as_ref()
            .and_then(|digest| self.expected.get(digest));
        let kind = match expected {
            Some(expected) if expected.size != len => {
                return Err(Halt::from(Fault::Damaged {
                    name: member.to_string(),
                    found: format!("it has {len} bytes, where {} are expected", expected.size),
                }));
            }
            Some(expected) => expected.kind.clone(),
            // All manifests were read, and none names it.
            None if self.is_listed && self.pending.is_empty() && promised.is_some() => {
                members.pass_over(len)?;
                return Ok(None);
            }
            None => Kind::Blob,
        };
        let Kind::Manifest(media_type) = kind else {
            self.check_room()?;
            return self.copy(members, member, promised, len, go_on).map(Some);
        };
        let bytes = members.whole(member, len, MAX_MANIFEST)?;
        let mut source = &bytes[..];
        let taken = self.store_from(&mut source, member, promised, len, go_on)?;
        self.read_manifest(&taken.digest, media_type.as_ref(), &bytes)?;
        Ok(Some(taken))
    }

    /// Announces what a manifest leads to.
    fn read_manifest(
        &mut self,
        digest: &Digest,
        media_type: Option<&MediaType>,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        self.pending.remove(digest);
        let info = ManifestInfo::parse(media_type, bytes).map_err(|error| {
            Halt::refused(format!("the archive is refused: {digest} in it is {error}"))
        })?;
        for Descriptor { digest, size, .. } in info.blobs() {
            let of_blob = Expected {
                size: *size,
                kind: Kind::Blob,
            };
            self.expected.entry(digest.clone()).or_insert(of_blob);
        }
        for child in info.manifests() {
            let known = self.expected.get(&child.digest);
            if !known.is_some_and(Expected::is_manifest) {
                self.expect_manifest(&child.digest, child.size, child.media_type.as_deref());
            }
        }
        Ok(())
    }

    /// Before the first blob, once it is known what is to come: better than in the middle.
    fn check_room(&mut self) -> Result<(), Halt> {
        if !self.is_listed || std::mem::replace(&mut self.has_checked_room, true) {
            return Ok(());
        }
        let mut needed = 0_u64;
        for (digest, expected) in &self.expected {
            if expected.kind == Kind::Blob && self.store.blob_len(digest)?.is_none() {
                needed = needed.saturating_add(expected.size);
            }
        }
        match self.store.missing_room(needed)? {
            0 => Ok(()),
            missing => Err(no_room(missing)),
        }
    }

    fn copy<R: Read>(
        &mut self,
        members: &mut Members<Stream<R>>,
        member: &Member,
        promised: Option<Digest>,
        len: u64,
        go_on: &mut dyn FnMut(u64) -> Result<(), Halt>,
    ) -> Result<Taken, Halt> {
        let mut source = Content(members);
        self.store_from(&mut source, member, promised, len, go_on)
    }

    fn store_from(
        &mut self,
        source: &mut dyn Source,
        member: &Member,
        promised: Option<Digest>,
        len: u64,
        go_on: &mut dyn FnMut(u64) -> Result<(), Halt>,
    ) -> Result<Taken, Halt> {
        if let Some(digest) = &promised {
            // Before it is looked for.
            self.holds.extend(self.store.hold_blob(digest));
        }
        let is_here = match &promised {
            Some(digest) => self.is_here(digest, len)?,
            None => false,
        };
        let stage = if is_here {
            None
        } else {
            Some(self.stage(len)?)
        };
        let written = self.write(source, promised.as_ref(), stage.as_ref(), go_on);
        let (digest, is_gzip) = written.inspect_err(|_| {
            if let Some(stage) = &stage {
                stage.discard();
            }
        })?;
        if let Some(promised) = promised.filter(|promised| *promised != digest) {
            if let Some(stage) = &stage {
                stage.discard();
            }
            tracing::debug!(%promised, %digest, "a damaged blob in an archive");
            return Err(Halt::from(Fault::Damaged {
                name: member.to_string(),
                found: format!("its digest is {digest}"),
            }));
        }
        match stage {
            Some(stage) if self.is_here(&digest, len)? => stage.discard(),
            Some(stage) => self.staged.push(Staged {
                stage,
                digest: digest.clone(),
                len,
            }),
            None => {}
        }
        if len >= LARGE || self.staged.len() >= MOST_STAGED {
            self.commit()?;
        }
        self.taken.insert(digest.clone(), len);
        Ok(Taken {
            digest,
            len,
            is_gzip,
        })
    }

    fn stage(&self, len: u64) -> Result<StagedBlob, Halt> {
        let staged = self.runtime.block_on(self.store.scratch(len));
        staged.map_err(|error| match error {
            RoomError::NoRoom { needed, .. } => match self.store.missing_room(len) {
                // Of the disk's, which no sum foresees.
                Ok(0) => no_room(needed),
                Ok(missing) => no_room(missing),
                Err(error) => error.into(),
            },
            RoomError::Io(error) => error.into(),
        })
    }

    fn is_here(&self, digest: &Digest, len: u64) -> io::Result<bool> {
        let is_staged = self.staged.iter().any(|staged| staged.digest == *digest);
        Ok(is_staged || self.store.blob_len(digest)? == Some(len))
    }

    /// The digest of what was written, and whether it looks compressed.
    fn write(
        &mut self,
        source: &mut dyn Source,
        promised: Option<&Digest>,
        stage: Option<&StagedBlob>,
        go_on: &mut dyn FnMut(u64) -> Result<(), Halt>,
    ) -> Result<(Digest, bool), Halt> {
        let algorithm = promised.map_or(Algorithm::Sha256, Digest::algorithm);
        let hasher = Hasher::new(algorithm);
        let mut hasher = hasher.ok_or_else(|| Halt::refused("a digest cannot be computed"))?;
        let (mut offset, mut is_gzip) = (0_u64, false);
        loop {
            let count = source.read(&mut self.buffer)?;
            let piece = self.buffer.get(..count).unwrap_or_default();
            if piece.is_empty() {
                return Ok((hasher.finish(), is_gzip));
            }
            if offset == 0 {
                is_gzip = piece.starts_with(&[0x1f, 0x8b]);
            }
            hasher.update(piece);
            if let Some(stage) = stage {
                stage.write_at(offset, piece).map_err(full)?;
            }
            offset += count as u64;
            go_on(count as u64)?;
        }
    }

    /// Makes durable what was written. Several at once cost no more than one.
    pub(super) fn commit(&mut self) -> Result<(), Halt> {
        let staged = std::mem::take(&mut self.staged);
        let store = &self.store;
        let commits = staged
            .iter()
            .map(|one| store.commit(&one.stage, one.len, &one.digest));
        let committed = self.runtime.block_on(join_all(commits));
        let mut failed = None;
        for (one, committed) in staged.iter().zip(committed) {
            match committed {
                Ok(came) => {
                    // While the stage still counts as a reader.
                    self.holds.extend(self.store.hold_blob(&one.digest));
                    self.new.extend(came.map(|at| Brought {
                        digest: one.digest.clone(),
                        at,
                    }));
                }
                Err(error) => {
                    one.stage.discard();
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Stores what was made of other parts.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<Taken, Halt> {
        let digest = Digest::sha256(bytes);
        let len = bytes.len() as u64;
        let member = Member::Blob(digest.clone());
        let mut source = bytes;
        self.store_from(&mut source, &member, Some(digest), len, &mut |_| Ok(()))
    }
}

/// Where the bytes of a blob come from.
trait Source {
    /// Some of them; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault>;
}

struct Content<'a, R: Read>(&'a mut Members<Stream<R>>);

impl<R: Read> Source for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        self.0.read(buffer)
    }
}

impl Source for &[u8] {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        Ok(Read::read(self, buffer)?)
    }
}

fn full(error: io::Error) -> Halt {
    if error.kind() == io::ErrorKind::StorageFull {
        return Halt::refused(format!(
            "the disk is full: {error}; free disk space, evict with `layby gc --to`, or remove images with `layby rm`"
        ));
    }
    error.into()
}

/// Read at once.
const PIECE: usize = 256 * 1024;
/// A blob that is committed by itself.
const LARGE: u64 = 1024 * 1024;
/// Blobs that wait to be committed together.
const MOST_STAGED: usize = 64;

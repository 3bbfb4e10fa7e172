//! The only place that builds a path, and reads one back (see the layout in the module's documentation).
//!
//! Safe by construction: every part of a path is a fixed word, or comes from a type whose grammar has no slash, no
//! `.` and `..`, and whose length fits a file name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::UpstreamName;
use crate::oci::{Digest, RepoName};

use super::notes::Note;
use super::partial::StageKey;
use super::refs::{RefKey, RefKind, RefKindName};

/// Paths under a data directory.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

/// Names a file in `partial/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartialId(u64);

impl PartialId {
    /// An id that no other has, in all likelihood; creating the file says for sure.
    pub(super) fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The data directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Format version and instance id.
    pub(super) fn identity(&self) -> PathBuf {
        self.root.join("layby.json")
    }

    /// The file that is locked while the directory is in use.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("layby.lock")
    }

    /// What outlives a restart besides content.
    pub(super) fn note(&self, note: Note) -> PathBuf {
        self.root.join(match note {
            Note::Pins => "pins.json",
            Note::Imports => "imports.json",
            Note::Statistics => "statistics.json",
            Note::Scrub => "scrub.json",
            Note::Totals => "totals.json",
        })
    }

    /// The secret of the admin listener.
    pub(super) fn admin_token(&self) -> PathBuf {
        self.root.join("admin.token")
    }

    /// Blobs that were moved aside because they no longer match their digest.
    pub(super) fn damaged_dir(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// A blob that is moved aside.
    pub(super) fn damaged(&self, digest: &Digest) -> PathBuf {
        let name = digest_name(digest).replace(':', "-");
        self.damaged_dir().join(name)
    }

    /// Files being written: blobs and records alike.
    pub(super) fn partial_dir(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// A partial: the bytes so far of a blob that a later fetch may go on with.
    pub(super) fn stage(&self, key: &StageKey) -> PathBuf {
        self.partial_dir().join(key.to_string())
    }

    /// What tells which bytes of a partial are there.
    pub(super) fn stage_log(&self, key: &StageKey) -> PathBuf {
        self.partial_dir().join(format!("{key}{LOG_SUFFIX}"))
    }

    /// A file being written that is worth nothing once its writer is gone.
    pub(super) fn partial(&self, id: PartialId) -> PathBuf {
        self.partial_dir().join(format!("{:016x}", id.0))
    }

    /// Committed blobs.
    pub(super) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// A committed blob; `None` for a digest that cannot be verified, which has no place here.
    pub(super) fn blob(&self, digest: &Digest) -> Option<PathBuf> {
        let shard = digest
            .is_verifiable()
            .then(|| digest.encoded().get(..2))??;
        let mut path = self.blobs_dir();
        path.extend([digest.algorithm_name(), shard, digest.encoded()]);
        Some(path)
    }

    /// Records.
    pub(super) fn refs_dir(&self) -> PathBuf {
        self.root.join("refs")
    }

    /// Where the records of one kind of a repository are.
    pub(super) fn kind_dir(
        &self,
        upstream: &UpstreamName,
        repository: &RepoName,
        kind: RefKindName,
    ) -> PathBuf {
        self.repository_dir(upstream, repository)
            .join(kind_folder(kind))
    }

    /// A record.
    pub(super) fn record(&self, key: &RefKey) -> PathBuf {
        let (folder, name) = match &key.kind {
            RefKind::Tag(tag) => (TAGS, format!("{tag}.json")),
            RefKind::Manifest(digest) => (MANIFESTS, format!("{}.json", digest_name(digest))),
            RefKind::Blob(digest) => (BLOBS, digest_name(digest)),
            RefKind::List(list) => (LISTS, format!("{}.json", hash_of(list))),
        };
        let mut path = self.repository_dir(&key.upstream, &key.repository);
        path.extend([folder, &name]);
        path
    }

    fn repository_dir(&self, upstream: &UpstreamName, repository: &RepoName) -> PathBuf {
        let mut path = self.refs_dir();
        path.push(upstream.as_str());
        path.extend(repository.components());
        path
    }
}

/// Whether a name in the data directory itself is one of ours.
pub(super) fn is_of_root(name: &OsStr) -> bool {
    let ours = [
        "layby.json",
        "layby.lock",
        "pins.json",
        "imports.json",
        "statistics.json",
        "scrub.json",
        "totals.json",
        "admin.token",
        "blobs",
        "partial",
        "refs",
        "damaged",
    ];
    ours.iter().any(|one| name == *one)
}

/// What lies in `partial/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartialName {
    /// See [`Layout::partial`].
    Scratch,
    /// See [`Layout::stage`].
    Stage(StageKey),
    /// See [`Layout::stage_log`].
    Log(StageKey),
}

/// What the file in `partial/` with this name is; `None` for a file that is none of ours.
pub(super) fn partial_name(name: &OsStr) -> Option<PartialName> {
    let name = name.to_str()?;
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if name.len() == 16 && name.bytes().all(is_hex) {
        return Some(PartialName::Scratch);
    }
    match name.strip_suffix(LOG_SUFFIX) {
        Some(key) => StageKey::parse(key).map(PartialName::Log),
        None => StageKey::parse(name).map(PartialName::Stage),
    }
}

/// Whether a file in `damaged/` is a blob that was moved aside.
pub(super) fn is_damaged_name(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.split_once('-'));
    parts.is_some_and(|(algorithm, _)| ALGORITHMS.contains(&algorithm))
}

/// Names of the folders in `blobs/`.
pub(super) const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// The digest of the blob at `blobs/<algorithm>/<shard>/<name>`; `None` for a file that is none of ours.
pub(super) fn blob_digest(algorithm: &str, shard: &OsStr, name: &OsStr) -> Option<Digest> {
    let encoded = name.to_str()?;
    let digest: Digest = format!("{algorithm}:{encoded}").parse().ok()?;
    (digest.is_verifiable() && encoded.get(..2) == shard.to_str()).then_some(digest)
}

/// What the record with this file name is about; `None` for a file that is none of ours.
pub(super) fn record_kind(kind: RefKindName, name: &OsStr) -> Option<RefKind> {
    let name = name.to_str()?;
    Some(match kind {
        RefKindName::Tag => RefKind::Tag(name.strip_suffix(".json")?.parse().ok()?),
        RefKindName::Manifest => RefKind::Manifest(name.strip_suffix(".json")?.parse().ok()?),
        RefKindName::Blob => RefKind::Blob(name.parse().ok()?),
    })
}

/// Whether a folder of records is that of the manifests.
pub(super) fn is_manifest_folder(name: &OsStr) -> bool {
    name == MANIFESTS
}

/// Whether a name in a repository's directory holds records, rather than being the next component of a longer name:
/// no component begins with an underscore.
pub(super) fn is_record_folder(name: &str) -> bool {
    name.starts_with('_')
}

fn kind_folder(kind: RefKindName) -> &'static str {
    match kind {
        RefKindName::Tag => TAGS,
        RefKindName::Manifest => MANIFESTS,
        RefKindName::Blob => BLOBS,
    }
}

/// A digest as a file name: itself, or, too long for one (only of algorithms that nobody registered), its hash behind
/// a character that no digest has.
fn digest_name(digest: &Digest) -> String {
    if digest.as_str().len() <= LONGEST_DIGEST_NAME {
        digest.to_string()
    } else {
        format!("~{}", hash_of(digest.as_str()))
    }
}

fn hash_of(text: &str) -> String {
    Digest::sha256(text.as_bytes()).encoded().to_owned()
}

const LOG_SUFFIX: &str = ".log";

const TAGS: &str = "_tags";
const MANIFESTS: &str = "_manifests";
const BLOBS: &str = "_blobs";
const LISTS: &str = "_lists";

/// File names have 255 bytes; this leaves some for a suffix.
const LONGEST_DIGEST_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn digests() -> impl Strategy<Value = Digest> {
        prop_oneof![
            "[0-9a-f]{64}".prop_map(|hex| format!("sha256:{hex}")),
            "[0-9a-f]{128}".prop_map(|hex| format!("sha512:{hex}")),
            "[a-z0-9]{1,8}([+._-][a-z0-9]{1,3}){0,2}:[a-zA-Z0-9=_-]{1,480}",
        ]
        .prop_filter_map("a digest", |text| text.parse().ok())
    }

    fn kinds() -> impl Strategy<Value = RefKind> {
        prop_oneof![
            "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
                .prop_filter_map("a tag", |text| text.parse().ok().map(RefKind::Tag)),
            digests().prop_map(RefKind::Manifest),
            digests().prop_map(RefKind::Blob),
            ".{0,300}".prop_map(RefKind::List),
        ]
    }

    fn keys() -> impl Strategy<Value = RefKey> {
        (
            "[a-c.]{1,3}(:[0-9]{1,4})?".prop_filter_map("a name", |text| text.parse().ok()),
            "[a-b]{1,3}(/[a-b]{1,2}){0,3}".prop_filter_map("a name", |text| text.parse().ok()),
            kinds(),
        )
            .prop_map(|(upstream, repository, kind)| RefKey {
                upstream,
                repository,
                kind,
            })
    }

    fn layout() -> Layout {
        Layout::new("/data".into())
    }

    fn stays_inside(path: &Path) -> bool {
        path.strip_prefix("/data").is_ok_and(|inside| {
            inside.components().all(
                |part| matches!(part, Component::Normal(name) if name.len() <= 255 && name != "."),
            )
        })
    }

    proptest! {
        #[test]
        fn different_records_have_different_paths_inside_the_root(a in keys(), b in keys()) {
            let (path_a, path_b) = (layout().record(&a), layout().record(&b));
            prop_assert!(stays_inside(&path_a), "{path_a:?}");
            prop_assert_eq!(a == b, path_a == path_b);
            // No record is a directory on the way to another.
            prop_assert!(a == b || !path_a.starts_with(&path_b));
        }

        #[test]
        fn a_records_name_gives_its_key_back(key in keys()) {
            let path = layout().record(&key);
            let name = path.file_name().unwrap();
            let (kind, readable) = match &key.kind {
                RefKind::Tag(_) => (RefKindName::Tag, true),
                RefKind::Manifest(digest) => {
                    (RefKindName::Manifest, digest.as_str().len() <= LONGEST_DIGEST_NAME)
                }
                RefKind::Blob(digest) => {
                    (RefKindName::Blob, digest.as_str().len() <= LONGEST_DIGEST_NAME)
                }
                RefKind::List(_) => return Ok(()),
            };
            prop_assert_eq!(record_kind(kind, name), readable.then_some(key.kind));
        }

        #[test]
        fn different_blobs_have_different_paths_inside_the_root(a in digests(), b in digests()) {
            let (path_a, path_b) = (layout().blob(&a), layout().blob(&b));
            prop_assert_eq!(path_a.is_some(), a.is_verifiable());
            if let Some(path) = &path_a {
                prop_assert!(stays_inside(path), "{:?}", path);
                prop_assert_eq!(a == b, path_a == path_b);
                let names: Vec<_> = path.components().rev().map(Component::as_os_str).collect();
                prop_assert_eq!(
                    blob_digest(names[2].to_str().unwrap(), names[1], names[0]),
                    Some(a)
                );
            }
        }

        #[test]
        fn partial_files_are_told_from_foreign_ones(name in "[0-9a-fgA-F.]{15,17}", stage in "[0-9a-f]{64}") {
            let name_of = |path: PathBuf| partial_name(path.file_name().unwrap());
            prop_assert_eq!(name_of(layout().partial(PartialId(7))), Some(PartialName::Scratch));
            let ours = name.len() == 16
                && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            prop_assert_eq!(partial_name(OsStr::new(&name)).is_some(), ours);
            let key = StageKey::parse(&stage).unwrap();
            prop_assert_eq!(name_of(layout().stage(&key)), Some(PartialName::Stage(key)));
            prop_assert_eq!(name_of(layout().stage_log(&key)), Some(PartialName::Log(key)));
            prop_assert_eq!(StageKey::parse(&stage[1..]), None);
            prop_assert_eq!(StageKey::parse(&stage.to_uppercase()).is_some(), stage == stage.to_uppercase());
        }
    }

    #[test]
    fn a_blob_in_another_shards_folder_is_foreign() {
        let digest = Digest::sha256(b"x");
        let shard = OsStr::new(&digest.encoded()[..2]);
        let name = OsStr::new(digest.encoded());
        assert_eq!(blob_digest("sha256", shard, name), Some(digest.clone()));
        assert_eq!(blob_digest("sha256", OsStr::new("zz"), name), None);
        assert_eq!(blob_digest("md5", shard, name), None);
    }
}

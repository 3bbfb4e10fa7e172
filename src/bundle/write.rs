//! What an image layout is made of and how it stands in a tar: the same bytes for the same images.
//!
//! What lists the images comes first, then manifests, then everything else by digest, so that whoever reads the tar as it
//! comes knows each blob before it is there. Owner, time and mode are the same everywhere.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

use crate::oci::Digest;

use super::docker::{DockerImage, write_docker};
use super::header::BLOCK;
use super::{DOCKER_MANIFEST, Fault, INDEX, Index, Member, OCI_LAYOUT, OCI_LAYOUT_JSON};

/// An image layout that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Name and content of each document.
    pub documents: Vec<(&'static str, Vec<u8>)>,
    /// Digest and length of each blob, manifests first.
    pub blobs: Vec<(Digest, u64)>,
}

impl Layout {
    /// Images, which are sorted, and the manifests and other blobs that they need. `docker` is for `docker load`, which takes
    /// neither indexes nor other platforms' images.
    pub fn new(
        index: &Index,
        docker: &[DockerImage],
        manifests: &BTreeMap<Digest, u64>,
        others: &BTreeMap<Digest, u64>,
    ) -> Result<Self, Fault> {
        let mut documents = vec![
            (OCI_LAYOUT, OCI_LAYOUT_JSON.as_bytes().to_vec()),
            (INDEX, index.to_json()?),
        ];
        if !docker.is_empty() {
            documents.push((DOCKER_MANIFEST, write_docker(docker)?));
        }
        let others = others
            .iter()
            .filter(|(digest, _)| !manifests.contains_key(*digest));
        let blobs = manifests.iter().chain(others);
        Ok(Self {
            documents,
            blobs: blobs.map(|(digest, len)| (digest.clone(), *len)).collect(),
        })
    }

    /// Digest of what lists the images, by which later exports name this one.
    pub fn index_digest(&self) -> Option<Digest> {
        let index = self.documents.iter().find(|(name, _)| *name == INDEX);
        index.map(|(_, json)| Digest::sha256(json))
    }

    /// Bytes of the tar.
    pub fn tar_len(&self) -> u64 {
        let documents = self.documents.iter();
        let documents = documents.map(|(name, content)| in_tar(name, content.len() as u64));
        let blobs = self.blobs.iter();
        let blobs = blobs.map(|(digest, len)| in_tar(&name_of(digest), *len));
        let members: u64 = documents.chain(blobs).sum();
        members + END.len() as u64
    }
}

/// The name of a blob.
pub(super) fn name_of(digest: &Digest) -> String {
    Member::Blob(digest.clone()).to_string()
}

/// Bytes that a file takes in a tar.
pub(super) fn in_tar(name: &str, len: u64) -> u64 {
    header(name, len).len() as u64 + len + padding(len) as u64
}

/// What goes before a file of `len` bytes in a tar.
pub fn header(name: &str, len: u64) -> Vec<u8> {
    let mut head = head();
    head.set_entry_type(EntryType::Regular);
    let mut records = Vec::new();
    if !put_name(&mut head, name) {
        records.extend(record("path", name));
        // Some name has to be there; whoever understands the record does not look at it.
        let start: String = name.chars().take(NAME_BYTES - 1).collect();
        put_name(&mut head, &start);
    }
    if len > MOST_OCTAL {
        records.extend(record("size", &len.to_string()));
    }
    head.set_size(len);
    head.set_cksum();
    if records.is_empty() {
        return head.as_bytes().to_vec();
    }
    let mut whole = extended(&records);
    whole.extend_from_slice(head.as_bytes());
    whole
}

/// An extended header, for the member that follows (POSIX.1-2001, "pax Extended Header").
fn extended(records: &[u8]) -> Vec<u8> {
    let mut head = head();
    head.set_entry_type(EntryType::XHeader);
    put_name(&mut head, "pax-header");
    let len = records.len() as u64;
    head.set_size(len);
    head.set_cksum();
    let mut whole = head.as_bytes().to_vec();
    whole.extend_from_slice(records);
    whole.resize(whole.len() + padding(len), 0);
    whole
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut len = rest.len();
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}").into_bytes()
}

fn head() -> Header {
    let mut head = Header::new_ustar();
    head.set_mode(0o644);
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head
}

/// Whether it fits.
fn put_name(head: &mut Header, name: &str) -> bool {
    let Some(field) = head.as_old_mut().name.get_mut(..name.len()) else {
        return false;
    };
    field.copy_from_slice(name.as_bytes());
    true
}

/// Zeros behind a content of `len` bytes.
pub fn padding(len: u64) -> usize {
    usize::try_from(len.next_multiple_of(BLOCK) - len).unwrap_or_default()
}

/// What ends a tar.
pub const END: [u8; 1024] = [0; 1024];

/// Bytes of a name in a head.
const NAME_BYTES: usize = 100;
/// The largest length that eleven octal digits can say.
const MOST_OCTAL: u64 = 0o777_7777_7777;

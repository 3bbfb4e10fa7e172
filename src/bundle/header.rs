//! The head of a member of a tar (POSIX.1-2001, "pax Interchange Format"), GNU's long names included.

use std::io::Read;

use tar::{EntryType, Header};

use super::Fault;

/// A member as its head, and what went before it, say.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) len: u64,
    /// Bytes of the heads before it that say something of it.
    pub(super) before: u64,
}

/// What members before it say of the next.
#[derive(Debug, Default)]
struct Said {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    len: Option<u64>,
}

/// The next head; `None` at the end. What stands between heads is read too, but no content.
pub(super) fn next<R: Read>(source: &mut R) -> Result<Option<Head>, Fault> {
    let mut said = Said::default();
    let mut before = 0_u64;
    for _ in 0..MOST_BEFORE {
        let Some(header) = block(source)? else {
            return Ok(None);
        };
        let own_len = header
            .entry_size()
            .map_err(|_| Fault::NotTar("a size in it cannot be read"))?;
        match header.entry_type() {
            EntryType::XHeader => said.read_pax(&small(source, own_len)?)?,
            EntryType::XGlobalHeader => _ = small(source, own_len)?,
            EntryType::GNULongName => said.name = Some(text(small(source, own_len)?)),
            EntryType::GNULongLink => said.link = Some(text(small(source, own_len)?)),
            kind => {
                let link = || header.link_name_bytes().map(|link| link.to_vec());
                let len = match kind {
                    EntryType::Link | EntryType::Symlink | EntryType::Directory => 0,
                    _ => said.len.unwrap_or(own_len),
                };
                if len > MOST_LEN {
                    return Err(Fault::NotTar("a size in it is impossible"));
                }
                let name = said.name.unwrap_or_else(|| header.path_bytes().to_vec());
                let link = said.link.or_else(link).unwrap_or_default();
                if name.len().max(link.len()) > MOST_NAME {
                    return Err(Fault::NotTar("a name in it is longer than 4 KiB"));
                }
                return Ok(Some(Head {
                    name,
                    link,
                    kind,
                    len,
                    before,
                }));
            }
        }
        before = before.saturating_add(BLOCK).saturating_add(own_len);
    }
    Err(Fault::NotTar(
        "a member of it has no end of extended headers",
    ))
}

/// The next block; `None` where it is one of zeros, the mark of the end.
fn block<R: Read>(source: &mut R) -> Result<Option<Header>, Fault> {
    let mut header = Header::new_old();
    source.read_exact(header.as_mut_bytes())?;
    if header.as_bytes().iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let mut right = header.clone();
    right.set_cksum();
    match (header.cksum(), right.cksum()) {
        (Ok(said), Ok(right)) if said == right => Ok(Some(header)),
        _ => Err(Fault::NotTar("a checksum in it does not match")),
    }
}

/// The content of a member that says something of the next one.
fn small<R: Read>(source: &mut R, len: u64) -> Result<Vec<u8>, Fault> {
    if len > MOST_EXTENDED {
        return Err(Fault::NotTar("an extended header in it is too long"));
    }
    let mut content = Vec::new();
    let wanted = len.next_multiple_of(BLOCK);
    source.by_ref().take(wanted).read_to_end(&mut content)?;
    if content.len() as u64 != wanted {
        return Err(Fault::Cut);
    }
    content.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    Ok(content)
}

/// Up to the first NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}

impl Said {
    /// Records of `length key=value\n`.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), Fault> {
        let wrong = || Fault::NotTar("an extended header in it cannot be read");
        while !records.is_empty() {
            let space = records.iter().position(|&byte| byte == b' ');
            let (digits, _) = records.split_at(space.ok_or_else(wrong)?);
            let len = number(digits).and_then(|len| usize::try_from(len).ok());
            let (record, rest) = len
                .and_then(|len| records.split_at_checked(len))
                .ok_or_else(wrong)?;
            let record = record.get(digits.len() + 1..).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|&byte| byte == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(wrong)?);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.len = Some(number(value).ok_or_else(wrong)?),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Fault::NotTar(
                        "a file in it has holes; write it without --sparse",
                    ));
                }
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Everything in a tar comes in blocks.
pub(super) const BLOCK: u64 = 512;
/// Heads that one member may have.
const MOST_BEFORE: u32 = 8;
/// Bytes of one that says something of the next.
const MOST_EXTENDED: u64 = 1024 * 1024;
/// Bytes of a name, which is what a path may have on Linux.
const MOST_NAME: usize = 4096;
/// More than any disk holds; sums of it do not overflow.
const MOST_LEN: u64 = 1 << 56;

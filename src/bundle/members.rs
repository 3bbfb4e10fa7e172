//! The files in a tar, one after the other, as they come: whatever their order, and never more than once through.

use std::collections::HashSet;
use std::io::{self, Read};

use tar::EntryType;

use super::compression::Plain;
use super::header::{self, BLOCK, Head};
use super::member::{self, Member};
use super::{Fault, MOST_DOCUMENT};

/// A file that belongs to images, or another name for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file; its content is what [`Members`] reads next.
    File(Member),
    /// A link to one, which may come before or after it.
    Alias {
        /// Its own name.
        name: String,
        /// Where it leads.
        target: String,
    },
}

/// What was found, and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub found: Found,
    /// Its bytes.
    pub len: u64,
}

/// A source that can be moved on.
pub(super) trait Source: Read {
    /// Passes over the next `count` bytes, which must be there.
    fn advance(&mut self, count: u64) -> io::Result<()>;
    /// Where it is.
    fn position(&self) -> u64;
}

/// A source that can only be read.
pub struct Stream<R: Read> {
    plain: Plain<R>,
    position: u64,
}

/// Reads a tar, compressed or not, and nothing twice.
pub struct Members<S> {
    source: S,
    /// Bytes of the present content that were not read.
    left: u64,
    /// Bytes behind it, up to the next head.
    padding: u64,
    seen: HashSet<String>,
    /// Bytes of names that are kept, here and by whoever is told of them.
    name_bytes: usize,
    /// Whatever they stand for.
    heads: u32,
    /// Bytes that belong to no image.
    passed_over: u64,
    is_over: bool,
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

impl<R: Read> Source for Stream<R> {
    fn advance(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if passed == count {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn position(&self) -> u64 {
        self.position
    }
}

impl<R: Read> Members<Stream<R>> {
    /// The files of what `source` gives, whose first bytes tell how it is compressed.
    pub fn of(source: R) -> Result<Self, Fault> {
        let plain = Plain::of(source)?;
        Ok(Self::over(Stream { plain, position: 0 }))
    }
}

#[allow(private_bounds, reason = "only streams are read from outside")]
impl<S: Source> Members<S> {
    pub(super) fn over(source: S) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
            seen: HashSet::new(),
            name_bytes: 0,
            heads: 0,
            passed_over: 0,
            is_over: false,
        }
    }

    /// The next file that belongs to images; `None` at the end. What was not read of the one before is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        while !self.is_over {
            self.source
                .advance(self.left.saturating_add(self.padding))?;
            (self.left, self.padding) = (0, 0);
            let Some(head) = header::next(&mut self.source)? else {
                self.is_over = true;
                self.finish()?;
                break;
            };
            self.count(&head)?;
            if let Some(found) = self.judge(&head)? {
                self.enter(head.len);
                return Ok(Some(Entry {
                    found,
                    len: head.len,
                }));
            }
            self.pass_over(head.len)?;
            self.enter(head.len);
        }
        Ok(None)
    }

    /// Reads on in the content of the present file; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(most);
        if wanted == 0 {
            return Ok(0);
        }
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let count = self.source.read(buffer)?;
        if count == 0 {
            return Err(Fault::Cut);
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }

    /// All of the present file, which has `len` bytes, at most `most`.
    pub fn whole(&mut self, member: &Member, len: u64, most: u64) -> Result<Vec<u8>, Fault> {
        if len > most {
            return Err(Fault::TooLarge {
                name: member.to_string(),
                len,
                most,
            });
        }
        let mut whole = Vec::new();
        let mut buffer = [0; 8 * 1024];
        loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                return Ok(whole);
            }
            whole.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    }

    /// A document that lists images.
    pub fn document(&mut self, member: &Member, len: u64) -> Result<Vec<u8>, Fault> {
        self.whole(member, len, MOST_DOCUMENT)
    }

    /// Counts content that is passed over since it belongs to no image: somebody may have made an archive of nothing else.
    pub fn pass_over(&mut self, len: u64) -> Result<(), Fault> {
        self.passed_over = self.passed_over.saturating_add(len);
        if self.passed_over > MOST_PASSED_OVER {
            return Err(Fault::TooMuch("4 GiB"));
        }
        Ok(())
    }

    /// Where the content of the present file begins, in the tar.
    pub(super) fn position(&self) -> u64 {
        self.source.position()
    }

    fn enter(&mut self, len: u64) {
        self.left = len;
        self.padding = len.next_multiple_of(BLOCK) - len;
    }

    /// Counts a head, also of what belongs to no image: those are passed over without anybody hearing of it.
    fn count(&mut self, head: &Head) -> Result<(), Fault> {
        self.heads = self.heads.saturating_add(1);
        if self.heads > MOST_MEMBERS {
            return Err(Fault::TooMuch("a million files and directories"));
        }
        self.pass_over(head.before)
    }

    /// What a head stands for; `None` for what belongs to no image and does no harm.
    fn judge(&mut self, head: &Head) -> Result<Option<Found>, Fault> {
        let name = member::normal(&head.name)?;
        let what = match head.kind {
            EntryType::Regular | EntryType::Continuous => {
                let member = Member::of(&head.name)?;
                return match member {
                    Some(member) => {
                        self.note(name, 0)?;
                        Ok(Some(Found::File(member)))
                    }
                    None => Ok(None),
                };
            }
            EntryType::Directory => return Ok(None),
            EntryType::Symlink | EntryType::Link => {
                let is_from_top = head.kind == EntryType::Link;
                let target = member::target(&name, &head.link, is_from_top)?;
                return self.alias(name, target).map(Some);
            }
            EntryType::Char | EntryType::Block => "a device",
            EntryType::Fifo => "a pipe",
            EntryType::GNUSparse => "a file with holes",
            _ => "of no known kind",
        };
        Err(Fault::Kind { name, what })
    }

    /// Old versions of docker save wrote a layer that was there before as a link to it.
    fn alias(&mut self, name: String, target: String) -> Result<Found, Fault> {
        let is_layer =
            |name: &str| matches!(Member::of(name.as_bytes()), Ok(Some(Member::Legacy(_))));
        if !is_layer(&name) || !is_layer(&target) || name == target {
            return Err(Fault::Link { name, target });
        }
        self.note(name.clone(), target.len())?;
        Ok(Found::Alias { name, target })
    }

    /// Keeps a name, and `more` bytes with it.
    fn note(&mut self, name: String, more: usize) -> Result<(), Fault> {
        let bytes = name.len().saturating_add(more);
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        if self.name_bytes > MOST_NAME_BYTES {
            return Err(Fault::TooMuch("64 MiB of names"));
        }
        if self.seen.contains(&name) {
            return Err(Fault::Twice(name));
        }
        self.seen.insert(name);
        Ok(())
    }

    /// Reads to the end of the source, so that a compression's own checksum is compared.
    fn finish(&mut self) -> Result<(), Fault> {
        io::copy(
            &mut self.source.by_ref().take(MOST_TRAILING),
            &mut io::sink(),
        )?;
        Ok(())
    }
}

/// Bytes of files that belong to no image.
const MOST_PASSED_OVER: u64 = 4 * 1024 * 1024 * 1024;
/// Files, directories and links in one archive.
const MOST_MEMBERS: u32 = 1_000_000;
/// Bytes of the names of files and links in one archive.
const MOST_NAME_BYTES: usize = 64 * 1024 * 1024;
/// Zeros behind the end.
const MOST_TRAILING: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::super::tests::odd;
    use super::*;

    fn next_after(tar: &[u8], spend: impl Fn(&mut Members<Stream<&[u8]>>)) -> Result<(), Fault> {
        let mut members = Members::of(tar)?;
        spend(&mut members);
        members.next_entry().map(drop)
    }

    #[test]
    fn every_head_counts_also_of_what_belongs_to_no_image() {
        for (kind, name) in [
            (EntryType::Directory, "blobs/"),
            (EntryType::Regular, "VERSION"),
            (EntryType::Regular, "index.json"),
        ] {
            let tar = odd(kind, name, "");
            let at = |heads| next_after(&tar, |members| members.heads = heads);
            at(MOST_MEMBERS - 1).unwrap();
            assert!(matches!(at(MOST_MEMBERS), Err(Fault::TooMuch(_))), "{name}");
        }
    }

    #[test]
    fn the_names_that_are_kept_have_a_bound_together() {
        for (kind, name, link) in [
            (EntryType::Regular, "a.tar", ""),
            (EntryType::Link, "a.tar", "another.tar"),
        ] {
            let tar = odd(kind, name, link);
            let at = |bytes| next_after(&tar, |members| members.name_bytes = bytes);
            let most = MOST_NAME_BYTES - name.len() - link.len();
            at(most).unwrap();
            assert!(matches!(at(most + 1), Err(Fault::TooMuch(_))), "{name}");
        }
    }

    #[test]
    fn what_is_said_before_a_head_counts_as_passed_over() {
        let name = "x".repeat(200);
        let mut builder = tar::Builder::new(Vec::new());
        let mut head = tar::Header::new_gnu();
        head.set_size(0);
        builder.append_data(&mut head, name, &[][..]).unwrap();
        let tar = builder.into_inner().unwrap();
        let at = |bytes| next_after(&tar, |members| members.passed_over = bytes);
        at(MOST_PASSED_OVER - 2 * BLOCK).unwrap();
        assert!(matches!(at(MOST_PASSED_OVER - 200), Err(Fault::TooMuch(_))));
    }
}

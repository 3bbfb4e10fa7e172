//! The log of a partial, as bytes: which parts of the file beside it were written, and how to tell that they still are
//! what was written. Pure, and total on any bytes.
//!
//! A header, then one record for each block of the blob, in the order in which they came; all of fixed size, numbers
//! little-endian, each closed by its checksum. Whatever follows the last whole and true record is not part of the log.
//!
//! ```text
//! header  0..8 "laybylog"  8..16 format  16..32 boot id  32..40 length of the blob  40..48 checksum
//! record  0..8 start       8..16 end     16..24 checksum of the block's bytes       24..32 checksum
//! ```

use std::fmt;

use twox_hash::XxHash3_64;

/// Tells one run of the operating system from the next: what was in memory, and not yet on disk, is still there as long
/// as it is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({})", const_hex::encode(self.0))
    }
}

/// What a log says before its first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHeader {
    /// The run of the operating system in which all of its blocks were written or read back.
    pub boot: BootId,
    /// Length of the blob in bytes.
    pub len: u64,
}

/// A part of the blob that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Position of its first byte.
    pub start: u64,
    /// Position after its last byte.
    pub end: u64,
    /// Of its bytes; see [`checksum`].
    pub checksum: u64,
}

impl LogHeader {
    /// Reads the beginning of a log. Returns what follows it too; `None` where it is not one.
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let (content, seal) = header.split_last_chunk::<8>()?;
        if u64::from_le_bytes(*seal) != checksum(content) {
            return None;
        }
        let (magic, content) = content.split_first_chunk::<8>()?;
        let (format, content) = split_u64(content)?;
        let (boot, content) = content.split_first_chunk::<16>()?;
        let (len, _) = split_u64(content)?;
        let header = Self {
            boot: BootId(*boot),
            len,
        };
        (magic == MAGIC && format == FORMAT).then_some((header, rest))
    }

    /// The blocks at the beginning of `records`, up to the first that is torn, altered or impossible. Each lies within
    /// the blob, and has between 1 and [`MAX_BLOCK`] bytes.
    pub fn blocks<'a>(&self, records: &'a [u8]) -> impl Iterator<Item = Block> + use<'a> {
        let len = self.len;
        let (records, _) = records.as_chunks::<RECORD_LEN>();
        records
            .iter()
            .map_while(move |record| Block::parse(record, len))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.boot.0);
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes
    }
}

impl Block {
    /// `None` for a record that does not name a block of a blob of `len` bytes.
    fn parse(record: &[u8; RECORD_LEN], len: u64) -> Option<Self> {
        let (content, seal) = record.split_last_chunk::<8>()?;
        if u64::from_le_bytes(*seal) != checksum(content) {
            return None;
        }
        let (start, content) = split_u64(content)?;
        let (end, content) = split_u64(content)?;
        let (checksum, _) = split_u64(content)?;
        let bytes = end.checked_sub(start)?;
        (end <= len && (1..=MAX_BLOCK).contains(&bytes)).then_some(Self {
            start,
            end,
            checksum,
        })
    }

    pub(super) fn encode_into(self, bytes: &mut Vec<u8>) {
        let from = bytes.len();
        bytes.extend(self.start.to_le_bytes());
        bytes.extend(self.end.to_le_bytes());
        bytes.extend(self.checksum.to_le_bytes());
        let seal = checksum(bytes.get(from..).unwrap_or_default());
        bytes.extend(seal.to_le_bytes());
    }
}

/// The checksum of records and of blocks: XXH3, 64 bits. It tells what a crash has torn, not what an enemy has made.
pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

/// Most bytes of a block.
pub const MAX_BLOCK: u64 = 256 * 1024;

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 48;

/// Bytes of a record.
pub(super) const RECORD_LEN: usize = 32;

const MAGIC: &[u8; 8] = b"laybylog";
const FORMAT: u64 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: LogHeader = LogHeader {
        boot: BootId([7; 16]),
        len: 1 << 40,
    };

    fn blocks() -> impl Strategy<Value = Vec<Block>> {
        let block = (0..HEADER.len - MAX_BLOCK, 1..=MAX_BLOCK, any::<u64>());
        let block = block.prop_map(|(start, len, checksum)| Block {
            start,
            end: start + len,
            checksum,
        });
        prop::collection::vec(block, 0..8)
    }

    fn written(blocks: &[Block]) -> Vec<u8> {
        let mut log = HEADER.encode();
        for block in blocks {
            block.encode_into(&mut log);
        }
        log
    }

    fn read(log: &[u8]) -> Option<Vec<Block>> {
        let (header, records) = LogHeader::parse(log)?;
        assert_eq!(header, HEADER);
        Some(header.blocks(records).collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(blocks in blocks()) {
            prop_assert_eq!(read(&written(&blocks)), Some(blocks));
        }

        #[test]
        fn a_torn_log_is_read_up_to_its_last_whole_record(blocks in blocks(), cut in any::<prop::sample::Index>()) {
            let mut log = written(&blocks);
            log.truncate(cut.index(log.len() + 1));
            let whole = log.len().checked_sub(HEADER_LEN).map(|records| records / RECORD_LEN);
            prop_assert_eq!(read(&log), whole.map(|whole| blocks[..whole].to_vec()));
        }

        #[test]
        fn an_altered_log_is_read_up_to_the_altered_record(
            blocks in blocks(), at in any::<prop::sample::Index>(), with in 1_u8..
        ) {
            let mut log = written(&blocks);
            let at = at.index(log.len());
            log[at] ^= with;
            let whole = at.checked_sub(HEADER_LEN).map(|records| records / RECORD_LEN);
            prop_assert_eq!(read(&log), whole.map(|whole| blocks[..whole].to_vec()));
        }

        #[test]
        fn any_bytes_are_read_without_harm(log in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some((header, records)) = LogHeader::parse(&log) {
                prop_assert!(header.blocks(records).all(|block| block.end <= header.len));
            }
        }
    }

    #[test]
    fn blocks_beyond_the_blob_too_long_or_empty_end_the_log() {
        for (start, end) in [
            (HEADER.len - 1, HEADER.len + 1),
            (0, MAX_BLOCK + 1),
            (5, 5),
            (6, 5),
            (u64::MAX, 0),
        ] {
            let block = Block {
                start,
                end,
                checksum: 0,
            };
            assert_eq!(read(&written(&[block])), Some(vec![]), "{block:?}");
        }
    }

    #[test]
    fn a_log_of_another_format_is_none() {
        let mut log = HEADER.encode();
        log[8] = 2;
        let seal = checksum(&log[..HEADER_LEN - 8]);
        log[HEADER_LEN - 8..].copy_from_slice(&seal.to_le_bytes());
        assert_eq!(LogHeader::parse(&log), None);
    }
}

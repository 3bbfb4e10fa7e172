//! Whatever a power loss leaves of a partial's log: blocks that lie within the blob, up to the first that is not whole.

#![no_main]

use layby::store::{LogHeader, MAX_BLOCK, checksum};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (is_sealed, bytes) = input;
    let mut bytes = bytes.to_vec();
    if is_sealed {
        // Chance does not find checksums.
        seal(&mut bytes);
    }
    let Some((header, records)) = LogHeader::parse(&bytes) else {
        return;
    };
    let blocks: Vec<_> = header.blocks(records).collect();
    assert!(blocks.len() <= records.len() / RECORD);
    for block in &blocks {
        assert!(block.start < block.end && block.end <= header.len);
        assert!(block.end - block.start <= MAX_BLOCK);
    }
    // What is torn off takes its own blocks with it, and none of those before.
    let torn = header.blocks(&records[..records.len() / 2]).count();
    assert!(
        header
            .blocks(records)
            .take(torn)
            .eq(blocks.into_iter().take(torn))
    );
});

const HEADER: usize = 48;
const RECORD: usize = 32;

/// Gives a log of these bytes its checksums.
fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER {
        return;
    }
    bytes[..16].copy_from_slice(b"laybylog\x01\0\0\0\0\0\0\0");
    let (header, records) = bytes.split_at_mut(HEADER);
    let (content, sum) = header.split_at_mut(HEADER - 8);
    sum.copy_from_slice(&checksum(content).to_le_bytes());
    for record in records.chunks_exact_mut(RECORD) {
        let (content, sum) = record.split_at_mut(RECORD - 8);
        sum.copy_from_slice(&checksum(content).to_le_bytes());
    }
}

use std::fs;
use std::io::IoSlice;

use crate::store::files::{Disk, Files as _};

#[test]
fn parts_are_written_one_behind_the_other_however_many_and_however_short() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = Disk.create(&path).unwrap();
    // More than the system takes at once, with empty ones in front, among them and at the end.
    let parts: Vec<Vec<u8>> = (0_u32..3000)
        .map(|n| n.to_le_bytes()[..(n % 4) as usize].to_vec())
        .chain([vec![1; 100_000], vec![]])
        .collect();
    let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    Disk.write_parts_at(&file, 5, &slices).unwrap();
    Disk.write_parts_at(&file, 3, &[IoSlice::new(b""), IoSlice::new(b"")])
        .unwrap();
    let written = fs::read(&path).unwrap();
    assert!(written[..5] == [0; 5] && written[5..] == parts.concat());
}

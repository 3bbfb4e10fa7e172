//! The index of what is stored: memory per blob, and what it costs to choose who goes.

use std::hint::black_box;
use std::time::Instant;

use layby::oci::Digest;
use layby::store::IndexProbe;

/// Chosen at once from each index, if it has twice as many.
const VICTIMS: u32 = 10_000;

/// Prints what indexes of `few` and of `many` blobs take, and what a victim of each costs.
pub(crate) fn compare(few: u32, many: u32) {
    // The first pays for pages that the others find.
    measure(few);
    let small = measure(few);
    let large = measure(many);
    println!(
        "a victim of {many} costs {:.1} times as much as one of {few}",
        large / small
    );
}

/// Prints what an index of `count` blobs takes, and what victims cost; nanoseconds for each.
fn measure(count: u32) -> f64 {
    let victims = VICTIMS.min(count / 2);
    let before = resident();
    let mut index = IndexProbe::of((0..count).map(|number| {
        let digest = Digest::sha256(&number.to_le_bytes());
        // Last uses in no order, and lengths from nothing to some megabytes.
        (
            digest,
            u64::from(number % 4_000_000),
            number.wrapping_mul(0x9e37_79b1) >> 2,
        )
    }));
    let taken = resident().saturating_sub(before);
    // One in ten is pinned.
    for number in (0..count).step_by(10) {
        index.pin(&Digest::sha256(&number.to_le_bytes()));
    }
    let started = Instant::now();
    black_box(index.evict(victims as usize, u32::MAX / 2));
    let each = started.elapsed().as_secs_f64() * 1e9 / f64::from(victims);
    println!(
        "{count:>9} blobs: {:>4} bytes of memory each; {victims} victims chosen and removed at {each:.0} ns each",
        taken / u64::from(count)
    );
    each
}

/// Bytes of memory that this process takes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * 4096
}

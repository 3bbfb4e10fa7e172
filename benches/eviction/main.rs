//! Which blobs should go when the cache is full: policies compared on made-up months of pulls.
//!
//! `cargo bench --bench eviction` prints byte and request hit ratios for each trace and cache size, and draws
//! `docs/eviction.svg`. Everything comes from a fixed seed: the figures change only when the code does. Without
//! `--bench`, as under `cargo test --benches`, it looks at a few days only and draws nothing.
//!
//! # What was decided by it
//!
//! The byte hit ratio counts most, as the cache is there to save the upstream's bytes and the client's time, and most
//! bytes are in few layers. By it, over all traces and sizes, segmented LRU and S3-FIFO are best and within a few
//! tenths of a per cent of each other; plain LRU is about two per cent behind, and ten where a nightly sweep is a bit
//! larger than the cache; SIEVE is between them, and worse than LRU where the cache is large. GDSF finds by far the most
//! requests, since it gives up one large layer for a thousand small ones, and the fewest bytes, fewer than FIFO; as
//! LFU-DA, which leaves the size out, it is like LRU.
//!
//! The store does segmented LRU. It is the simplest of the best: two orders by last use, one bit for each blob, no
//! memory of what has gone (as S3-FIFO has), and its order is one that an operator can be told: what was used once
//! goes first as long as it is more than a quarter of the cache, else what was used longest ago. All that it needs but
//! the bit is the last use, which the disk has; after a restart everything counts as used again, which costs half a per
//! cent at most with a restart every night, as what comes in then is still a newcomer.

mod compare;
mod images;
mod plot;
mod policy;
mod random;
mod simulate;
#[path = "../support/svg.rs"]
mod svg;
mod trace;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let is_quick = !std::env::args().any(|argument| argument == "--bench");
    let traces = trace::all(is_quick);
    let outcomes: Vec<compare::Outcome> = traces.iter().map(compare::compare).collect();
    outcomes.iter().for_each(compare::print);
    compare::summary(&outcomes);
    if is_quick {
        return Ok(());
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::create_dir_all(&docs)?;
    let picture = docs.join("eviction.svg");
    std::fs::write(&picture, plot::draw(&outcomes))?;
    println!("\nwrote {}", picture.display());
    Ok(())
}

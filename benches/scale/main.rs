//! How large a cache may be: what the index of what is stored costs, and how Layby starts on a data directory of a given
//! size.
//!
//! First the index: the memory for each blob, and the time for each victim, among twenty thousand and among a million.
//!
//! `cargo bench --bench scale -- 100000 1000000` makes a data directory with so many blobs and a tenth as many tags,
//! drops the page cache where that is permitted, starts `layby serve` on it, and prints how long the first stored blob
//! and the first tag took from the start of the process, how long the scan took, and what memory it holds for each
//! blob. `LAYBY_BIN` names the program; without it, it is the one that cargo built for this. `--dir DIR` says where the
//! directories are made, `--keep` leaves them there. Without `--bench`, as under `cargo test --benches`, two thousand
//! blobs are enough.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    reason = "a measurement that cannot be made has failed, and need not be exact"
)]

mod index;
mod make;
mod program;
mod start;

use std::io;
use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, Default)]
struct Wanted {
    sizes: Vec<u64>,
    dir: Option<PathBuf>,
    keep: bool,
    is_bench: bool,
}

fn main() -> io::Result<()> {
    let wanted = arguments(std::env::args().skip(1))?;
    let sizes = match (wanted.sizes.as_slice(), wanted.is_bench) {
        ([], true) => &[100_000, 1_000_000],
        ([], false) => &[2_000][..],
        (sizes, _) => sizes,
    };
    let dir = wanted.dir.unwrap_or_else(std::env::temp_dir);
    if wanted.is_bench {
        index::compare(20_000, 1_000_000);
    } else {
        index::compare(200, 2_000);
    }
    start::run(sizes, &dir, wanted.keep)
}

fn arguments(mut given: impl Iterator<Item = String>) -> io::Result<Wanted> {
    let mut wanted = Wanted::default();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--bench" => wanted.is_bench = true,
            "--keep" => wanted.keep = true,
            "--dir" => wanted.dir = given.next().map(PathBuf::from),
            other => {
                let size = other.parse().map_err(|_| {
                    io::Error::other(format!(
                        "{other:?} is neither a number of blobs, --dir DIR nor --keep"
                    ))
                })?;
                wanted.sizes.push(size);
            }
        }
    }
    Ok(wanted)
}

//! What can be said on the command line, and the sizes that follow from it.

use std::path::PathBuf;

use clap::Parser;

/// Layby beside other programs, on loopback.
#[derive(Debug, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Args {
    /// Rounds of each measurement; nine or more where a ratio is to be believed.
    #[arg(long, value_name = "N")]
    pub(crate) pairs: Option<usize>,
    /// A look in a few minutes: three rounds of shorter measurements.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Whether the bytes are right, in seconds, without any figure.
    #[arg(long)]
    pub(crate) tiny: bool,
    /// Only this scenario; may be given several times.
    #[arg(long, value_name = "SCENARIO")]
    pub(crate) only: Vec<String>,
    /// Fails when a peer is missing, instead of leaving it out.
    #[arg(long)]
    pub(crate) all_peers: bool,
    /// Writes all samples for machines.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the table for pasting into README.md.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Draws pictures into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
    /// Where data directories are made, and removed; some gigabytes for each scenario.
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub(crate) data: PathBuf,
    /// What cargo says when it means measurements.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Only bytes count; every body is hashed.
    pub(crate) is_tiny: bool,
    /// Rounds of a measurement whose ratio is judged.
    pub(crate) pairs: usize,
    /// Length of a measurement of what is warm.
    pub(crate) seconds: f64,
    /// Size of the warm blob.
    pub(crate) warm: u64,
    /// Size of a cold blob.
    pub(crate) cold: u64,
    /// Size of the blob of the memory scenario.
    pub(crate) large: u64,
    /// Size of the blob that a herd of ten asks for; a hundred ask for a quarter.
    pub(crate) herd: u64,
    /// Small blobs.
    pub(crate) small: usize,
    /// Size of the blob whose connections the origin limits.
    pub(crate) parallel: u64,
    /// Blobs in the data directory that a start finds.
    pub(crate) stored: usize,
    /// Slow readers of a warm blob; a fifth of it read a cold one.
    pub(crate) readers: usize,
    /// Most connections of a measurement.
    pub(crate) connections: usize,
}

impl Args {
    /// The sizes that these arguments ask for.
    pub(crate) fn scale(&self) -> Scale {
        let full = Scale {
            is_tiny: false,
            pairs: 9,
            seconds: 1.0,
            warm: 512 << 20,
            cold: 256 << 20,
            large: 4 << 30,
            herd: 200_000_000,
            small: 2_000,
            parallel: 200 << 20,
            stored: 100_000,
            readers: 500,
            connections: 256,
        };
        let mut scale = if self.tiny || !self.bench {
            Scale {
                is_tiny: true,
                pairs: 1,
                seconds: 0.02,
                warm: 3 << 20,
                cold: 3 << 20,
                large: 8 << 20,
                herd: 3_000_000,
                small: 20,
                parallel: 20 << 20,
                stored: 200,
                readers: 10,
                connections: 8,
            }
        } else if self.quick {
            Scale {
                pairs: 3,
                seconds: 0.5,
                ..full
            }
        } else {
            full
        };
        if let Some(pairs) = self.pairs {
            scale.pairs = pairs.max(1);
        }
        scale
    }
}

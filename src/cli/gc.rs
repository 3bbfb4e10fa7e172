//! `layby gc`.

use std::process::ExitCode;

use bytesize::ByteSize;

use super::admin::AdminArgs;
use super::table::{count, size};
use crate::proxy::admin::model::Collected;

/// Evicts now: what was used least, down to a size, or as far as the limits and the age in the configuration want it.
/// Pinned images stay, and so does what is being read.
#[derive(Debug, clap::Args)]
pub struct Gc {
    #[command(flatten)]
    admin: AdminArgs,
    /// Bytes of blobs that may be left: 500MiB, 1.5TiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    to: Option<u64>,
    /// Say what would go, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    /// Exits with 1 where more is left than was wanted.
    pub fn run(self) -> ExitCode {
        let Self { admin, to, dry_run } = self;
        admin.run(async |administration, output| {
            let collected = administration.collect(to, dry_run).await?;
            output.answer(&collected, shown)?;
            Ok(if collected.reached {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        })
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err("write a size such as 500MiB, 200GiB or 1.5TiB".to_owned()),
    }
}

fn shown(collected: &Collected) -> String {
    let (word, left) = if collected.dry_run {
        ("would evict", "would be left")
    } else {
        ("evicted", "left")
    };
    let mut text = format!(
        "{word} {} in {}; {} in {} {left}\n",
        size(collected.freed_bytes),
        count(collected.blobs, "blob"),
        size(collected.left_bytes),
        count(collected.left_blobs, "blob"),
    );
    if !collected.reached {
        text.push_str("the rest is pinned or in use\n");
    }
    text
}

//! `layby rm`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::admin::AdminArgs;
use super::table::{count, size};
use crate::proxy::admin::model::Removal;

/// Removes images, and what only they lead to. What other images share stays, and so do pinned images; what is being
/// read is read to its end.
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    admin: AdminArgs,
    /// Images, or patterns: alpine:3.20, 'docker.io/library/*:3.*'; of an image without a tag, latest
    #[arg(value_name = "IMAGE|PATTERN", required = true)]
    images: Vec<String>,
    /// Say what would go, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Rm {
    /// Exits with 1 where one of the images is not there.
    pub fn run(self) -> ExitCode {
        let Self {
            admin,
            images,
            dry_run,
        } = self;
        admin.run(async |administration, output| {
            for name in &images {
                let removal = administration.remove(name, dry_run).await?;
                output.answer(&removal, shown)?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn shown(removal: &Removal) -> String {
    let (word, freed) = if removal.dry_run {
        ("would remove", "would free")
    } else {
        ("removed", "freed")
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    for name in &removal.images {
        let _ = writeln!(text, "{word} {name}");
    }
    for name in &removal.pinned {
        let _ = writeln!(text, "pinned, left alone: {name}");
    }
    let _ = writeln!(
        text,
        "{}; {freed} {} in {}, {} in {} stay with other images",
        count(removal.images.len() as u64, "image"),
        size(removal.freed_bytes),
        count(removal.blobs, "blob"),
        size(removal.kept_bytes),
        count(removal.kept_blobs, "blob")
    );
    text
}

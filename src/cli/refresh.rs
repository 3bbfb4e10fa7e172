//! `layby refresh`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::admin::AdminArgs;
use super::table::count;
use crate::proxy::admin::model::Refreshed;

/// Has the upstream asked about a tag at its next use, however young the last answer is. What is stored stays, and is
/// served as before should the upstream not answer.
#[derive(Debug, clap::Args)]
pub struct Refresh {
    #[command(flatten)]
    admin: AdminArgs,
    /// Images, or patterns: alpine:3.20, 'docker.io/library/*:*'; of an image without a tag, latest
    #[arg(value_name = "TAG|PATTERN", required = true)]
    images: Vec<String>,
}

impl Refresh {
    /// Exits with 1 where one of the images is not there.
    pub fn run(self) -> ExitCode {
        let Self { admin, images } = self;
        admin.run(async |administration, output| {
            for name in &images {
                output.answer(&administration.refresh(name).await?, shown)?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn shown(refreshed: &Refreshed) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for name in &refreshed.images {
        let _ = writeln!(text, "asked about at its next use: {name}");
    }
    let tags = count(refreshed.images.len() as u64, "tag");
    let _ = writeln!(text, "{tags}");
    text
}

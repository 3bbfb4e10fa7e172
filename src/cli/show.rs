//! `layby show`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::admin::AdminArgs;
use super::ls::freshness;
use super::table::{dash, minute, size, table, yes};
use crate::proxy::admin::model::{ImageDetail, Presence};

/// Shows an image: its manifests and layers, what is here of them, and what other images share.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    admin: AdminArgs,
    /// Image: alpine:3.20, ghcr.io/org/app@sha256:…; without a tag, latest
    image: String,
}

impl Show {
    /// Exits with 1 where there is no such image.
    pub fn run(self) -> ExitCode {
        let Self { admin, image } = self;
        admin.run(async |administration, output| {
            let detail = administration.image(&image).await?;
            output.answer(&detail, shown)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn shown(detail: &ImageDetail) -> String {
    let image = &detail.summary;
    let mut text = String::new();
    let mut say = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:<11} {value}");
    };
    say("image", &image.image);
    say("digest", &image.digest);
    if let Some(previous) = &detail.previous {
        say("previous", previous);
    }
    for platform in &image.platforms {
        let state = if platform.complete {
            "complete"
        } else {
            "incomplete"
        };
        say("platform", &format!("{} {state}", platform.platform));
    }
    say("size", &size(image.size_bytes));
    say("shared", &size(image.shared_bytes));
    say("last use", &minute(image.last_used));
    say("pinned", &yes(image.pinned));
    say("freshness", freshness(image.freshness));
    say("validated", &minute(image.validated));
    text.push('\n');
    text.push_str(&parts(detail));
    text
}

fn parts(detail: &ImageDetail) -> String {
    let mut rows = Vec::new();
    for manifest in &detail.manifests {
        rows.push(vec![
            manifest.digest.clone(),
            manifest.media_type.clone().unwrap_or_else(dash),
            manifest.platform.clone().unwrap_or_else(dash),
            size(manifest.size_bytes),
            state(manifest.state).to_owned(),
            yes(manifest.shared),
        ]);
        rows.extend(manifest.blobs.iter().map(|blob| {
            vec![
                format!("  {}", blob.digest),
                blob.media_type.clone().unwrap_or_else(dash),
                dash(),
                size(blob.size_bytes),
                state(blob.state).to_owned(),
                yes(blob.shared),
            ]
        }));
    }
    let head = ["PART", "TYPE", "PLATFORM", "SIZE", "STATE", "SHARED"];
    table(&head, &rows, &[3])
}

fn state(presence: Presence) -> &'static str {
    match presence {
        Presence::Present => "present",
        Presence::Unproven => "unproven",
        Presence::Missing => "missing",
        Presence::External => "external",
    }
}

//! `layby ls`.

use std::process::ExitCode;

use super::admin::{AdminArgs, Failure, Output};
use super::table::{dash, minute, short, size, table, yes};
use crate::proxy::admin::model::{FreshnessState, ImagePage, ImageSummary};
use crate::proxy::admin::{Administration, ImageQuery};

/// Lists the images in the cache: tags, and manifests that no tag leads to.
#[derive(Debug, clap::Args)]
pub struct Ls {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this image, or those that this pattern matches: alpine:3.20, 'docker.io/library/*:*'
    #[arg(value_name = "IMAGE|PATTERN")]
    images: Option<String>,
}

impl Ls {
    /// Exits with 0, also where there is none.
    pub fn run(self) -> ExitCode {
        let Self { admin, images } = self;
        admin.run(async |administration, output| list(administration, output, images).await)
    }
}

/// Part by part, so that a large cache takes no more memory than a small one.
async fn list(
    administration: &dyn Administration,
    output: &Output,
    matching: Option<String>,
) -> Result<ExitCode, Failure> {
    let mut last = None;
    let mut is_first = true;
    loop {
        let query = ImageQuery {
            n: Some(PAGE),
            last,
            matching: matching.clone(),
        };
        let ImagePage { images, next } = administration.images(query).await?;
        if output.json {
            for image in &images {
                let start = if is_first { "{\"images\":[" } else { "," };
                is_first = false;
                output.text(&format!("{start}{}", output.json_of(image)?))?;
            }
        } else if is_first || !images.is_empty() {
            let text = shown(&images);
            // The titles once.
            let text = if is_first {
                &text
            } else {
                text.split_once('\n').map_or("", |(_, rest)| rest)
            };
            output.text(text)?;
            is_first = false;
        }
        last = next;
        if last.is_none() {
            break;
        }
    }
    if output.json {
        output.text(if is_first {
            "{\"images\":[]}\n"
        } else {
            "]}\n"
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(images: &[ImageSummary]) -> String {
    let head = [
        "UPSTREAM",
        "REPOSITORY",
        "TAG",
        "DIGEST",
        "PLATFORMS",
        "SIZE",
        "SHARED",
        "LAST USE",
        "PINNED",
        "FRESHNESS",
    ];
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            vec![
                image.upstream.clone(),
                image.repository.clone(),
                image.tag.clone().unwrap_or_else(dash),
                short(&image.digest).to_owned(),
                platforms(image),
                size(image.size_bytes),
                size(image.shared_bytes),
                minute(image.last_used),
                yes(image.pinned),
                freshness(image.freshness).to_owned(),
            ]
        })
        .collect();
    table(&head, &rows, &[5, 6])
}

/// Those that are here whole, and how many are not: `linux/amd64 (+5 missing)`.
fn platforms(image: &ImageSummary) -> String {
    let complete: Vec<&str> = image
        .platforms
        .iter()
        .filter(|platform| platform.complete)
        .map(|platform| platform.platform.as_str())
        .collect();
    let missing = image.platforms.len() - complete.len();
    match (complete.is_empty(), missing) {
        (true, 0) => dash(),
        (false, 0) => complete.join(","),
        (true, missing) => format!("({missing} missing)"),
        (false, missing) => format!("{} (+{missing} missing)", complete.join(",")),
    }
}

/// What is said of a tag's freshness.
pub(super) fn freshness(state: FreshnessState) -> &'static str {
    match state {
        FreshnessState::Fresh => "fresh",
        FreshnessState::Behind => "behind",
        FreshnessState::Old => "old",
        FreshnessState::Fixed => "fixed",
    }
}

/// Images asked for at once.
const PAGE: usize = 2000;

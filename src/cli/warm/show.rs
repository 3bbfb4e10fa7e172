//! What is told of images and of a run, in words.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::table::{count, size};
use crate::proxy::warm::model::{WarmOutcome, WarmReport, WarmedImage};

/// One line of an image that is through.
pub(super) fn ended(image: &WarmedImage) -> String {
    let WarmedImage {
        image: name,
        outcome,
        bytes,
        here_bytes,
        fetched_bytes,
        referrers,
        problems,
        ..
    } = image;
    let along = match referrers {
        0 => String::new(),
        count => format!(", {count} with it"),
    };
    match outcome {
        WarmOutcome::Here => format!("{name}: here, {}{along}", size(*bytes)),
        WarmOutcome::Fetched => format!(
            "{name}: fetched {}, {} were here{along}",
            size(*fetched_bytes),
            size(*here_bytes)
        ),
        WarmOutcome::Lacking => format!(
            "{name}: {} to fetch of {}{along}",
            size(bytes.saturating_sub(*here_bytes)),
            size(*bytes)
        ),
        WarmOutcome::Failed => {
            let first = problems.first();
            let why = first.map(|problem| format!("{}: {}", problem.part, problem.message));
            let more = match problems.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            format!("{name}: failed: {}{more}", why.unwrap_or_default())
        }
    }
}

/// The sum of a run, and what is not here.
pub(super) fn summary(report: &WarmReport, failed: &[WarmedImage]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for image in failed {
        let _ = writeln!(text, "{}:", image.image);
        for problem in &image.problems {
            let _ = writeln!(text, "  {}: {}", problem.part, problem.message);
        }
    }
    let images = count(report.images, "image");
    let elapsed = Duration::from_millis(report.elapsed_ms);
    let took = humantime::format_duration(Duration::from_secs(elapsed.as_secs()));
    let _ = if report.dry_run {
        writeln!(
            text,
            "{images}: {} here, {} to fetch, {} failed; {} to fetch of {}",
            report.here,
            report.lacking,
            report.failed,
            size(report.bytes.saturating_sub(report.here_bytes)),
            size(report.bytes)
        )
    } else {
        writeln!(
            text,
            "{images}: {} fetched, {} here before, {} failed; {} fetched, {} here before, in {took}",
            report.fetched,
            report.here,
            report.failed,
            size(report.fetched_bytes),
            size(report.here_bytes)
        )
    };
    text
}

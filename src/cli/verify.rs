//! `layby verify`.

use std::process::ExitCode;

use futures_util::StreamExt as _;

use super::admin::{AdminArgs, Failure, Output};
use super::table::{count, size};
use crate::proxy::admin::model::{Finding, VerifyEvent, VerifyReport};
use crate::proxy::admin::{AdminError, Administration};

/// Reads every stored blob and compares it with its digest, then every record and what it leads to. What does not match
/// is moved to damaged/ in the data directory, and fetched again at its next use.
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only this image: alpine:3.20; without a tag, latest
    image: Option<String>,
}

impl Verify {
    /// Exits with 1 where something that should be here is damaged or cannot be read.
    pub fn run(self) -> ExitCode {
        let Self { admin, image } = self;
        admin.run(async |administration, output| verify(administration, output, image).await)
    }
}

async fn verify(
    administration: &dyn Administration,
    output: &Output,
    image: Option<String>,
) -> Result<ExitCode, Failure> {
    let mut events = administration.verify(image.as_deref()).await?;
    let mut printed = 0_usize;
    while let Some(event) = events.next().await {
        match event? {
            VerifyEvent::Progress {
                blobs,
                bytes,
                of_blobs,
            } => output.progress(&format!("{blobs} of {of_blobs} blobs, {}", size(bytes))),
            VerifyEvent::Found(finding) => {
                output.progress("");
                output.text(&found(output, &finding, printed)?)?;
                printed = printed.saturating_add(1);
            }
            VerifyEvent::Failed { message } => {
                output.progress("");
                return Err(AdminError::Failed(message).into());
            }
            VerifyEvent::Done(report) => {
                output.progress("");
                output.text(&ended(output, &report, printed)?)?;
                return Ok(if report.is_whole() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
        }
    }
    Err(AdminError::Unreachable("it ended without a result; see Layby's log".to_owned()).into())
}

fn found(output: &Output, finding: &Finding, printed: usize) -> Result<String, Failure> {
    if output.json {
        let start = if printed == 0 { START } else { "," };
        return Ok(format!("{start}{}", output.json_of(finding)?));
    }
    let Finding {
        kind,
        place,
        digest,
        ..
    } = finding;
    let of = digest.as_ref().filter(|digest| *digest != place);
    let of = of.map(|digest| format!(" {digest}")).unwrap_or_default();
    Ok(format!(
        "{}: {place}{of}: {}; {}\n",
        kind.as_str(),
        finding.found,
        finding.done
    ))
}

fn ended(output: &Output, report: &VerifyReport, printed: usize) -> Result<String, Failure> {
    if output.json {
        let start = if printed == 0 { START } else { "" };
        return Ok(format!(
            "{start}],\"report\":{}}}\n",
            output.json_of(report)?
        ));
    }
    let counts = [
        (report.damaged, "damaged"),
        (report.truncated, "truncated"),
        (report.emptied, "emptied"),
        (report.unreadable, "unreadable"),
        (report.records, "damaged records"),
        (report.missing, "missing"),
        (report.foreign, "foreign"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let findings = if counts.is_empty() {
        "nothing wrong".to_owned()
    } else {
        counts.join(", ")
    };
    Ok(format!(
        "{} read, {}; {} sound; {findings}\n",
        count(report.blobs, "blob"),
        size(report.bytes),
        report.sound
    ))
}

/// Of the findings as JSON.
const START: &str = "{\"findings\":[";

//! `layby warm`.

mod bars;
mod lines;
mod show;
mod sources;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use futures_util::StreamExt as _;

use super::MISUSE;
use super::admin::{AdminArgs, Failure, Output};
use crate::oci::PlatformName;
use crate::proxy::admin::{AdminError, Administration};
use crate::proxy::warm::model::{WarmEvent, WarmReport, WarmRequest};

use bars::Bars;
use lines::Lines;
use show::summary;
use sources::Sources;

/// Brings images into the cache before they are asked for: through the server that uses the data directory, or straight
/// into it where none does.
///
/// What is here is not fetched again, so a run that was cut short goes on where it ended. The registry is asked where each
/// tag points now, however fresh the cache holds it to be.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub struct Warm {
    #[command(flatten)]
    admin: AdminArgs,
    /// Images, as docker names them: alpine:3.20, ghcr.io/org/app@sha256:…; without a tag, latest
    #[arg(value_name = "IMAGE", required_unless_present = "files")]
    images: Vec<String>,
    #[command(flatten)]
    sources: Sources,
    /// Platforms to bring, separated by commas, or all [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<String>,
    /// Bring what refers to the images too: signatures, SBOMs, attestations
    #[arg(long)]
    referrers: bool,
    /// Fetch manifests only, and tell what would be fetched
    #[arg(long)]
    dry_run: bool,
    /// Blobs that are fetched at once, 1 to 64 [default: 4]
    #[arg(long, value_name = "N")]
    jobs: Option<u32>,
}

/// How it ends.
const EXIT_STATUS: &str = "\
Exit status:
  0  everything is here; with --dry-run, everything is known
  1  something is not: the summary says what, and why
  2  the arguments or the configuration cannot be used
  3  nobody to ask: the server does not answer or refuses the token, the data directory cannot be used";

impl Warm {
    /// Exits with 0 only if all that was asked for is here.
    pub fn run(self) -> ExitCode {
        let Self {
            admin,
            mut images,
            sources,
            platform,
            referrers,
            dry_run,
            jobs,
        } = self;
        match sources.read(platform.first().map(String::as_str)) {
            Ok((named, notes)) => {
                images.extend(named);
                for note in notes {
                    eprintln!("{note}");
                }
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(MISUSE);
            }
        }
        let platforms = if platform.is_empty() {
            vec![PlatformName::of_this_machine().to_string()]
        } else {
            platform
        };
        let request = WarmRequest {
            images,
            platforms,
            referrers,
            dry_run,
            jobs,
        };
        admin.run_fetching(async |administration, output| {
            warm(administration, output, request).await
        })
    }
}

async fn warm(
    administration: &dyn Administration,
    output: &Output,
    request: WarmRequest,
) -> Result<ExitCode, Failure> {
    let dry_run = request.dry_run;
    let mut events = administration.warm(request).await?;
    let mut shown = Shown::new(output, dry_run);
    let mut failed = Vec::new();
    while let Some(event) = events.next().await {
        let event = event?;
        match &mut shown {
            Shown::Json => output.text(&(output.json_of(&event)? + "\n"))?,
            Shown::Bars(bars) => bars.event(&event),
            Shown::Lines(lines) => lines.event(&event),
        }
        match event {
            WarmEvent::Ended(image) if !image.problems.is_empty() => failed.push(image),
            WarmEvent::Failed { message } => return Err(AdminError::Failed(message).into()),
            WarmEvent::Done(report) => {
                if !output.json {
                    output.text(&summary(&report, &failed))?;
                }
                return Ok(status(&report));
            }
            _ => {}
        }
    }
    Err(AdminError::Unreachable("it ended without a result; see Layby's log".to_owned()).into())
}

/// How it is shown what goes on.
enum Shown {
    /// Each event as it is.
    Json,
    /// For who looks on.
    Bars(Box<Bars>),
    /// For logs.
    Lines(Lines),
}

impl Shown {
    fn new(output: &Output, dry_run: bool) -> Self {
        if output.json {
            Self::Json
        } else if io::stderr().is_terminal() {
            Self::Bars(Box::new(Bars::new()))
        } else {
            Self::Lines(Lines::new(dry_run))
        }
    }
}

fn status(report: &WarmReport) -> ExitCode {
    if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

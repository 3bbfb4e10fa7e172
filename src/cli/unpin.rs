//! `layby unpin`.

use std::process::ExitCode;

use super::admin::AdminArgs;

/// Takes a pin away that was made by command; those of the configuration are taken out there.
#[derive(Debug, clap::Args)]
pub struct Unpin {
    #[command(flatten)]
    admin: AdminArgs,
    /// Pins as `layby pin` lists them
    #[arg(value_name = "IMAGE|PATTERN", required = true)]
    images: Vec<String>,
}

impl Unpin {
    /// Exits with 1 where there is no such pin.
    pub fn run(self) -> ExitCode {
        let Self { admin, images } = self;
        admin.run(async |administration, output| {
            for name in &images {
                let change = administration.unpin(name).await?;
                output.answer(&change, |change| format!("unpinned {}\n", change.pin))?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

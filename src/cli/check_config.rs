//! `layby check-config FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{MISUSE, OverrideArgs};
use crate::config::Config;

/// Says whether `serve` would take a file, with the same environment and flags.
#[derive(Debug, clap::Args)]
pub struct CheckConfig {
    /// Configuration file.
    file: PathBuf,
    #[command(flatten)]
    overrides: OverrideArgs,
}

impl CheckConfig {
    /// Prints "ok", or every fault.
    pub fn run(self) -> ExitCode {
        match Config::load(Some(&self.file), &self.overrides.overrides()) {
            Ok(config) => {
                for warning in config.warnings() {
                    eprintln!("warning: {warning}");
                }
                println!("{}: ok", self.file.display());
                ExitCode::SUCCESS
            }
            Err(faults) => {
                eprintln!("{faults}");
                ExitCode::from(MISUSE)
            }
        }
    }
}

//! `layby`.

use std::process::ExitCode;

use clap::Parser;
use layby::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().command.run()
}

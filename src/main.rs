//! `layby`.

use std::process::ExitCode;

use clap::Parser;
use layby::cli::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::CheckConfig(command) => command.run(),
        Command::Healthcheck(command) => command.run(),
    }
}

//! `layby man [DIR]`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_mangen::Man as Page;

use super::Cli;

/// Prints the manual page layby(1), or writes one for each command into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// Directory to write layby.1, layby-serve.1 and so on into, made where there is none
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  layby man | man -l -
  layby man /usr/local/share/man/man1";

impl Man {
    /// Exits with 0, or with 1 where a page cannot be written.
    pub fn run(self) -> ExitCode {
        let written = match &self.dir {
            Some(dir) => write(dir).map_err(|error| format!("{}: {error}", dir.display())),
            None => print().map_err(|error| error.to_string()),
        };
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the manual cannot be written: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

fn print() -> io::Result<()> {
    let mut page = Vec::new();
    // As the pages in a directory have it: each command is explained there.
    let command = Cli::command().disable_help_subcommand(true);
    Page::new(command).render(&mut page)?;
    io::stdout().lock().write_all(&page)
}

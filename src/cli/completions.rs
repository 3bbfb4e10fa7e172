//! `layby completions SHELL`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

/// Prints a script by which a shell completes the commands and options of layby.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  layby completions bash > /usr/share/bash-completion/completions/layby
  layby completions zsh > /usr/share/zsh/site-functions/_layby
  layby completions fish > ~/.config/fish/completions/layby.fish";

impl Completions {
    /// Exits with 0, or with 1 where the script cannot be written.
    pub fn run(self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "layby", &mut script);
        match std::io::stdout().lock().write_all(&script) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the script cannot be written: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

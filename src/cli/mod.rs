//! The command line: one file per command. Reads arguments, prints to people, picks the exit status.
//!
//! Decides nothing about content. May import everything; nothing imports it but `main`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Faults, Given, Overrides};

mod admin;
mod check_config;
mod completions;
mod export;
mod gc;
mod healthcheck;
mod import;
mod ls;
mod man;
mod named;
mod pin;
mod refresh;
mod rm;
mod serve;
mod setup;
mod show;
mod stats;
mod table;
mod unpin;
mod verify;
mod warm;

pub use check_config::CheckConfig;
pub use completions::Completions;
pub use export::Export;
pub use gc::Gc;
pub use healthcheck::Healthcheck;
pub use import::Import;
pub use ls::Ls;
pub use man::Man;
pub use pin::Pin;
pub use refresh::Refresh;
pub use rm::Rm;
pub use serve::Serve;
pub use setup::Setup;
pub use show::Show;
pub use stats::Stats;
pub use unpin::Unpin;
pub use verify::Verify;
pub use warm::Warm;

/// Exit status for a configuration that cannot be used; also clap's, for arguments that cannot.
const MISUSE: u8 = 2;

/// A caching pull-through proxy for container registries.
#[derive(Debug, clap::Parser)]
#[command(name = "layby", version, max_term_width = 100, after_help = START)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do first.
const START: &str = "\
Without a configuration `layby serve` mirrors Docker Hub and the other well-known public registries
on 127.0.0.1:5000, and `layby setup docker` says how docker is told of it.";

/// A command and its arguments.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Runs the proxy until SIGTERM or SIGINT.
    Serve(Serve),
    /// Says whether a configuration file is right, or everything that is wrong with it.
    CheckConfig(CheckConfig),
    /// Says by its exit status whether Layby is up, for containers.
    Healthcheck(Healthcheck),
    /// Tells docker, containerd, podman and other clients of the mirror.
    Setup(Setup),
    /// Lists the images in the cache.
    Ls(Ls),
    /// Shows an image: its manifests and layers, what is here, what is shared.
    Show(Show),
    /// Shows what the cache holds and what it was good for.
    Stats(Stats),
    /// Removes images, and what only they lead to.
    Rm(Rm),
    /// Evicts now what was used least.
    Gc(Gc),
    /// Keeps images from being evicted, or lists the pins.
    Pin(Pin),
    /// Takes a pin away.
    Unpin(Unpin),
    /// Has upstreams asked about tags at their next use.
    Refresh(Refresh),
    /// Writes images to a file, to be carried elsewhere.
    Export(Export),
    /// Takes images in from a file.
    Import(Import),
    /// Reads everything and compares it with what it should be.
    Verify(Verify),
    /// Brings images into the cache before they are asked for.
    Warm(Warm),
    /// Prints a script for a shell to complete commands and options by.
    Completions(Completions),
    /// Prints the manual, or writes a page for each command.
    Man(Man),
}

impl Command {
    /// Does it.
    pub fn run(self) -> ExitCode {
        match self {
            Self::Serve(command) => command.run(),
            Self::CheckConfig(command) => command.run(),
            Self::Healthcheck(command) => command.run(),
            Self::Setup(command) => command.run(),
            Self::Ls(command) => command.run(),
            Self::Show(command) => command.run(),
            Self::Stats(command) => command.run(),
            Self::Rm(command) => command.run(),
            Self::Gc(command) => command.run(),
            Self::Pin(command) => command.run(),
            Self::Unpin(command) => command.run(),
            Self::Refresh(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Warm(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }
}

/// The configuration file.
#[derive(Debug, Clone, Default, clap::Args)]
struct FileArg {
    /// Configuration file [env: LAYBY_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArg {
    /// The file that the flag or the environment names.
    fn file(&self) -> Option<PathBuf> {
        let from_environment = || variable("LAYBY_CONFIG").filter(|file| !file.is_empty());
        self.config
            .clone()
            .or_else(|| from_environment().map(PathBuf::from))
    }
}

/// Flags that win over the configuration file.
#[derive(Debug, Clone, Default, clap::Args)]
struct OverrideArgs {
    /// Address to listen on, given once for each [env: LAYBY_LISTEN, separated by commas]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Directory that everything is kept in [env: LAYBY_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Open no connection, serve what is cached [env: LAYBY_OFFLINE=true]
    #[arg(long)]
    offline: bool,
    /// Look of log lines: auto, human or json; LAYBY_LOG sets their filter
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl OverrideArgs {
    /// These flags, and what the environment says where there is none.
    fn overrides(self) -> Overrides {
        let flags = Overrides {
            listen: (!self.listen.is_empty()).then_some(Given {
                value: self.listen,
                by: "--listen",
            }),
            data_dir: self.data_dir.map(|value| Given {
                value,
                by: "--data-dir",
            }),
            offline: self.offline.then(|| Given {
                value: "true".to_owned(),
                by: "--offline",
            }),
            log_format: self.log_format.map(|value| Given {
                value,
                by: "--log-format",
            }),
            log_filter: None,
        };
        flags.or(Overrides::from_environment(variable))
    }
}

/// The configuration that arguments and environment lead to.
fn configure(file: &FileArg, overrides: OverrideArgs) -> Result<Config, Faults> {
    Config::load(file.file().as_deref(), &overrides.overrides())
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// An address that a listener on `address` answers at.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// An error and what it came from: hyper's alone does not say more than "client error".
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_calls_are_taken() {
        for call in [
            "layby serve",
            "layby serve --config l.toml --listen 127.0.0.1:1 --listen [::1]:2 --data-dir /d --offline --log-format json",
            "layby check-config layby.toml",
            "layby healthcheck",
            "layby healthcheck --url http://127.0.0.1:5000/healthz",
            "layby ls --config l.toml --json",
            "layby ls docker.io/library/*:*",
            "layby show alpine:3.20 --data-dir /d",
            "layby stats --admin http://127.0.0.1:5050 --token-file /t",
            "layby rm alpine docker.io/org/*:v* --dry-run",
            "layby gc",
            "layby gc --to 1.5TiB --dry-run --json",
            "layby pin",
            "layby pin alpine",
            "layby unpin alpine",
            "layby refresh alpine",
            "layby export -o images.tar.zst alpine docker.io/org/app:*",
            "layby export --output - --all --format tar.zst",
            "layby export -o dir/ --pinned -f list -f - --since old.tar --list new.list",
            "layby import images.tar.zst",
            "layby import - --as ghcr.io/org/app:v1 --no-pin --json",
            "layby verify",
            "layby verify alpine",
            "layby setup containerd --mirror http://layby:5000 --registry ghcr.io --registry quay.io --write --dry-run",
            "layby setup k3s --ca /ca.pem --root /target",
            "layby setup kaniko --config l.toml",
            "layby setup --check --config l.toml --data-dir /d --mirror http://layby:5000 --json",
            "layby completions bash",
            "layby man",
            "layby man /usr/local/share/man/man1",
        ] {
            Cli::try_parse_from(call.split(' ')).expect(call);
        }
    }
}

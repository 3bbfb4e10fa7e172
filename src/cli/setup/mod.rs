//! `layby setup`: tells clients of the mirror.
//!
//! Each client has a file with what it is told, as pure functions: the text of a new file, and how one that is there is
//! added to without losing a line. `place` reads and writes; nothing else here does.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use super::{FileArg, MISUSE, OverrideArgs, configure, reachable};
use crate::config::{Config, UpstreamName};

mod buildkit;
mod check;
mod client;
mod containerd;
mod docker;
mod json;
mod k3s;
mod kaniko;
mod mirror;
mod piece;
mod place;
mod registries;
#[cfg(test)]
mod tests;
mod toml;
mod yaml;

use client::Client;
use mirror::{Authority, Mirror, Wish};
use place::{Change, Failure};

/// Prints what a client needs to pull through Layby, or writes it where the client looks for it.
///
/// Without --write nothing is changed. With it, the file keeps all that it says, and its old form stays beside it as
/// FILE.bak-TIME.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct Setup {
    /// Which client
    #[arg(value_enum, required_unless_present = "check")]
    client: Option<Client>,
    /// Look at configuration, data directory, server, clients and upstreams, and say what is wrong
    #[arg(long, conflicts_with_all = ["client", "registry", "ca", "write", "dry_run", "file"])]
    check: bool,
    /// Where the client reaches Layby, as http://host:port; without it, where the configuration has it listen
    #[arg(long, value_name = "URL")]
    mirror: Option<Mirror>,
    /// Registry to pull through it, given once for each; without it all, or those that most images come from where the
    /// client needs them named
    #[arg(long, value_name = "NAME", value_parser = mirror::registry)]
    registry: Vec<UpstreamName>,
    /// Certificate authority that the client needs to trust the mirror, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Write the files
    #[arg(long)]
    write: bool,
    /// Show what --write would change
    #[arg(long)]
    dry_run: bool,
    /// Directory that stands for / of the machine that is set up
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File to write instead of the client's usual one
    #[arg(long, value_name = "PATH", conflicts_with = "root")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: FileArg,
    /// With --check: the directory that everything is kept in [env: LAYBY_DATA_DIR]
    #[arg(long, value_name = "DIR", requires = "check")]
    data_dir: Option<PathBuf>,
    /// With --check: print JSON
    #[arg(long, requires = "check")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  layby setup docker                              print daemon.json for the mirror on this machine
  layby setup containerd --write                  set containerd up for all registries
  layby setup podman --registry ghcr.io --dry-run
  layby setup k3s --mirror https://layby.lan:5443 --ca /etc/ssl/layby.pem --write
  layby setup --check                             see what is wrong on this machine

Exit status:
  0  printed, written, or nothing to change; with --check, nothing is wrong
  1  a file cannot be read, added to or written; with --check, something is wrong
  2  the arguments or the configuration cannot be used";

/// Why there is nothing to print or write.
#[derive(Debug, thiserror::Error)]
enum Misuse {
    #[error("{0}")]
    Config(#[from] crate::config::Faults),
    #[error(
        "the configuration has no listener that clients reach; name the mirror with --mirror http://host:port"
    )]
    NoListener,
    #[error(
        "dockerd asks mirrors for Docker Hub alone, so --registry says nothing to it; leave it out"
    )]
    NoRegistries,
    #[error("{0} is not set up by one file; name a directory with --root instead of --file")]
    SeveralFiles(&'static str),
    #[error("kaniko reads no file; give it the flags that `layby setup kaniko` prints")]
    NoFiles,
    #[error("{path} cannot be read: {source}; name a file of certificates in PEM")]
    Authority { path: PathBuf, source: io::Error },
    #[error(
        "{0} holds no certificate in PEM; name the certificate of the authority that signed the mirror's"
    )]
    NoAuthority(PathBuf),
    #[error(
        "an authority is for a mirror that speaks TLS; write --mirror https://…, or leave --ca out"
    )]
    PlainAuthority,
}

impl Setup {
    /// Exits with 0 when the client is told or nothing is missing, 1 where a file cannot be read, added to or written, and
    /// 2 where the arguments or the configuration say nothing that can be done.
    pub fn run(self) -> ExitCode {
        let Some(client) = self.client else {
            return self.look();
        };
        let wish = match self.wish(client) {
            Ok(wish) => wish,
            Err(misuse) => {
                eprintln!("{misuse}");
                return ExitCode::from(MISUSE);
            }
        };
        let result = if self.write || self.dry_run {
            self.place(client, &wish)
        } else {
            self.print(client, &wish)
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure}");
                if let Failure::Refused { text, .. } = &failure {
                    eprintln!("What it should say besides:\n\n{text}");
                }
                ExitCode::FAILURE
            }
        }
    }

    /// Says what is wrong.
    fn look(self) -> ExitCode {
        let overrides = OverrideArgs {
            data_dir: self.data_dir,
            ..OverrideArgs::default()
        };
        let check = check::Check {
            mirror: self.mirror,
            root: self.root.as_deref(),
            file: &self.config,
            json: self.json,
        };
        match check.run(overrides) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("what was found cannot be told: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn wish(&self, client: Client) -> Result<Wish, Misuse> {
        if !self.registry.is_empty() && !client.knows_registries() {
            return Err(Misuse::NoRegistries);
        }
        if client.main_file().is_none() && (self.write || self.dry_run) {
            return Err(Misuse::NoFiles);
        }
        if client == Client::Containerd && self.file.is_some() {
            return Err(Misuse::SeveralFiles("containerd"));
        }
        let mirror = match &self.mirror {
            Some(mirror) => mirror.clone(),
            None => listener(&configure(&self.config, OverrideArgs::default())?)?,
        };
        if self.ca.is_some() && !mirror.is_tls() {
            return Err(Misuse::PlainAuthority);
        }
        Ok(Wish {
            mirror,
            registries: self.registry.clone(),
            authority: self.ca.as_deref().map(authority).transpose()?,
        })
    }

    /// What the client's main file holds where it is set up.
    fn main(&self, client: Client) -> Result<Option<String>, Failure> {
        let main = client.main_file().map(|path| self.at(path));
        Ok(main.map(|path| place::read(&path)).transpose()?.flatten())
    }

    /// The files on standard output, what is to be known about them on standard error.
    fn print(&self, client: Client, wish: &Wish) -> Result<(), Failure> {
        let pieces = client.pieces(wish, self.main(client)?.as_deref());
        let mut text = client.flags(wish).unwrap_or_default();
        let several = pieces.len() > 1;
        for (number, piece) in pieces.iter().enumerate() {
            if several {
                let gap = if number == 0 { "" } else { "\n" };
                let path = piece.path.display();
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{gap}# ==> {path} <==");
            }
            text.push_str(&piece.text);
        }
        let mut output = Output::default();
        output.tell(&text);
        if let [piece] = &pieces[..] {
            eprintln!("file: {}", piece.path.display());
        }
        tell(client, wish);
        if !pieces.is_empty() {
            eprintln!("to have it written there, keeping what is there: add --write");
        }
        output.ended()
    }

    /// All files are looked at before the first is written.
    fn place(&self, client: Client, wish: &Wish) -> Result<(), Failure> {
        let main = self.main(client)?;
        let changes: Vec<Change> = client
            .missing(wish, main.as_deref(), &|path| self.at(path))?
            .iter()
            .map(|piece| Change::of(piece, &self.at(&piece.path)))
            .collect::<Result<_, _>>()?;
        let (needed, settled): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.is_needed());
        let mut output = Output::default();
        if changes.is_empty() {
            output.tell("nothing to change, other files of the client say it already\n");
        }
        for change in settled {
            output.tell(&format!("{}: nothing to change\n", change.path().display()));
        }
        for change in &needed {
            if self.dry_run {
                output.tell(&change.difference());
                continue;
            }
            let backup = change.write(Timestamp::now())?;
            let was = backup.map(|path| format!(", was {}", path.display()));
            output.tell(&format!(
                "{}: written{}\n",
                change.path().display(),
                was.unwrap_or_default()
            ));
        }
        if !needed.is_empty() {
            tell(client, wish);
        }
        output.ended()
    }

    /// Where a client's path is on this machine.
    fn at(&self, path: &Path) -> PathBuf {
        match (&self.file, &self.root) {
            (Some(file), _) if self.client.and_then(Client::main_file) == Some(path) => {
                file.clone()
            }
            (_, Some(root)) => root.join(path.strip_prefix("/").unwrap_or(path)),
            _ => path.to_owned(),
        }
    }
}

/// Standard output, which is no reason to leave a file out: what it did not take is told at the end.
#[derive(Default)]
struct Output {
    failed: Option<io::Error>,
}

impl Output {
    fn tell(&mut self, text: &str) {
        let mut stdout = io::stdout().lock();
        let told = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        if let Err(error) = told {
            self.failed.get_or_insert(error);
        }
    }

    fn ended(self) -> Result<(), Failure> {
        match self.failed {
            // A pipe that nobody reads any more needs nothing.
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            _ => Ok(()),
        }
    }
}

fn tell(client: Client, wish: &Wish) {
    for note in client.notes(wish) {
        eprintln!("note: {note}");
    }
    eprintln!("then: {}", client.reload());
}

/// Where this machine reaches the Layby of a configuration.
fn listener(config: &Config) -> Result<Mirror, Misuse> {
    if let Some(address) = config.listen.first() {
        return Ok(Mirror::at(reachable(*address), false));
    }
    let tls = config.tls.as_ref().and_then(|tls| tls.listen.first());
    let address = tls.ok_or(Misuse::NoListener)?;
    Ok(Mirror::at(reachable(*address), true))
}

fn authority(path: &Path) -> Result<Authority, Misuse> {
    let pem = fs::read_to_string(path).map_err(|source| Misuse::Authority {
        path: path.to_owned(),
        source,
    })?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Misuse::NoAuthority(path.to_owned()));
    }
    Ok(Authority {
        path: path.to_owned(),
        pem,
    })
}

//! What the commands of administration have in common: finding whom to ask, and telling how it went.
//!
//! The lock of the data directory decides. While a server holds it, that server is asked, over its admin listener; else
//! the directory itself is. Both are an [`Administration`] and give the same answers.

mod owner;
mod remote;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use secrecy::SecretString;
use serde::Serialize;

use super::{FileArg, MISUSE, OverrideArgs, configure, reachable};
use crate::app::{AtRest, Environment, StartError};
use crate::config::{Config, Faults};
use crate::proxy::admin::{AdminError, Administration};
use crate::store::{OpenError, is_in_use, read_admin_token};

use owner::Foreign;
use remote::Remote;

/// Flags of every command of administration.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    file: FileArg,
    /// Directory that everything is kept in [env: LAYBY_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Ask the server whose admin listener this is, and no data directory: http://host:port
    #[arg(long, value_name = "URL")]
    admin: Option<http::Uri>,
    /// File with the server's token, instead of admin.token in the data directory
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON, as docs/openapi.json describes it
    #[arg(long)]
    json: bool,
}

/// How commands of administration end.
const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  it failed: no such image, another action under way, damage found
  2  the arguments or the configuration cannot be used
  3  nobody to ask: the server does not answer or refuses the token, the data directory cannot be used";

/// Exit status where nobody can be asked.
const NOBODY: u8 = 3;

/// Why a command did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Config(#[from] Faults),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Directory(#[from] StartError),
    #[error("{0}")]
    Nobody(String),
    #[error("no request could be prepared: {0}; raise the limits of threads and open files")]
    Setup(io::Error),
    #[error("the answer cannot be written: {0}")]
    Output(io::Error),
}

/// Whom to ask.
enum Reached {
    Server(Box<Remote>),
    Directory(AtRest),
}

/// What a command needs of a data directory at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// What is stored.
    Content,
    /// A place for what is to be stored.
    Place,
    /// Upstreams as well.
    Upstreams,
}

/// Where answers go.
pub(super) struct Output {
    /// Whether they are JSON.
    pub(super) json: bool,
}

impl AdminArgs {
    /// Finds whom to ask, and has `act` ask; the exit status.
    pub(super) fn run<F>(self, act: F) -> ExitCode
    where
        F: AsyncFnOnce(&dyn Administration, &Output) -> Result<ExitCode, Failure>,
    {
        self.run_on(Need::Content, act)
    }

    /// The same for what has to ask upstreams. A data directory that is not there is made.
    pub(super) fn run_fetching<F>(self, act: F) -> ExitCode
    where
        F: AsyncFnOnce(&dyn Administration, &Output) -> Result<ExitCode, Failure>,
    {
        self.run_on(Need::Upstreams, act)
    }

    /// The same for what brings content along. A data directory that is not there is made.
    pub(super) fn run_filling<F>(self, act: F) -> ExitCode
    where
        F: AsyncFnOnce(&dyn Administration, &Output) -> Result<ExitCode, Failure>,
    {
        self.run_on(Need::Place, act)
    }

    fn run_on<F>(self, need: Need, act: F) -> ExitCode
    where
        F: AsyncFnOnce(&dyn Administration, &Output) -> Result<ExitCode, Failure>,
    {
        let ended = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::Setup)
            .and_then(|runtime| {
                let ended = runtime.block_on(self.act(need, act));
                // A thread may still wait for standard input, or for a disk.
                runtime.shutdown_background();
                ended
            });
        ended.unwrap_or_else(|failure| {
            // Whoever has read enough of the answer is not to be told.
            if !failure.is_closed_pipe() {
                eprintln!("{failure}");
            }
            failure.status()
        })
    }

    async fn act<F>(self, need: Need, act: F) -> Result<ExitCode, Failure>
    where
        F: AsyncFnOnce(&dyn Administration, &Output) -> Result<ExitCode, Failure>,
    {
        let output = Output { json: self.json };
        match self.reach(need).await? {
            Reached::Server(remote) => act(&*remote, &output).await,
            Reached::Directory(directory) => {
                let administration = directory.administration();
                let ended = act(&*administration, &output).await;
                drop(administration);
                directory.close().await;
                ended
            }
        }
    }

    async fn reach(&self, need: Need) -> Result<Reached, Failure> {
        let overrides = OverrideArgs {
            data_dir: self.data_dir.clone(),
            ..OverrideArgs::default()
        };
        let config = configure(&self.file, overrides)?;
        if let Some(url) = &self.admin {
            let token = self.token(&config.data_dir)?;
            let remote = Remote::new(url, &token, None)?;
            return Ok(Reached::Server(Box::new(remote)));
        }
        let data_dir = &config.data_dir;
        let unusable = |error: io::Error| Failure::Nobody(no_directory(data_dir, &error));
        if let Some(owner) = Foreign::of(data_dir).map_err(unusable)? {
            // Not opened, not even to find the lock taken: it may be let go at any moment.
            if is_in_use(data_dir).map_err(unusable)? {
                return Ok(Reached::Server(Box::new(self.server(&config)?)));
            }
            return Err(Failure::Nobody(owner.to_string()));
        }
        let opened = match need {
            Need::Upstreams => AtRest::open_to_fetch(&config, Environment::default()).await,
            Need::Content | Need::Place => {
                if let Err(error) = std::fs::metadata(data_dir.join("layby.json"))
                    && !(need == Need::Place && is_new(data_dir))
                {
                    return Err(unusable(error));
                }
                let opened = AtRest::open(&config, Environment::default()).await;
                opened.map_err(StartError::from)
            }
        };
        match opened {
            Ok(directory) => Ok(Reached::Directory(directory)),
            Err(StartError::Store(OpenError::Locked { .. })) => {
                Ok(Reached::Server(Box::new(self.server(&config)?)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The server that holds the lock.
    fn server(&self, config: &Config) -> Result<Remote, Failure> {
        let data_dir = &config.data_dir;
        let Some(address) = config.admin.listen else {
            return Err(Failure::Nobody(format!(
                "{} is locked by another process, and [admin] listen is \"none\", so that it cannot be asked; name its \
                 admin listener with --admin, or stop it",
                data_dir.display()
            )));
        };
        let url = format!("http://{}", reachable(address));
        let url = url.parse().map_err(|_| {
            Failure::Nobody(format!(
                "{url} is no address; name the server's with --admin"
            ))
        })?;
        let token = self.token(data_dir)?;
        Remote::new(&url, &token, Some(data_dir.clone())).map_err(Into::into)
    }

    fn token(&self, data_dir: &Path) -> Result<SecretString, Failure> {
        let refused = |path: &Path, why: &dyn std::fmt::Display| {
            Failure::Nobody(format!(
                "{} cannot be read: {why}; run this as the user that Layby runs as, or name a copy with --token-file",
                path.display()
            ))
        };
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path).map_err(|error| refused(path, &error))?;
            return Ok(text.trim().to_owned().into());
        }
        let path = data_dir.join("admin.token");
        match read_admin_token(data_dir) {
            Ok(Some(token)) => Ok(token),
            Ok(None) => Err(refused(&path, &"there is none")),
            Err(error) => Err(refused(&path, &error)),
        }
    }
}

/// Whether there is nothing, or nothing in it.
fn is_new(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn no_directory(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{path} is no data directory of Layby: there is no layby.json in it; name the right one with --data-dir or \
             --config, or a running server with --admin"
        ),
        _ => format!(
            "{path} cannot be used: {error}; run this as the user that Layby runs as, or name a running server with \
             --admin and a copy of its token with --token-file"
        ),
    }
}

impl Failure {
    fn status(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Admin(AdminError::Invalid(_)) => ExitCode::from(MISUSE),
            Self::Admin(AdminError::Unreachable(_) | AdminError::Denied(_))
            | Self::Directory(_)
            | Self::Nobody(_) => ExitCode::from(NOBODY),
            Self::Output(_) if self.is_closed_pipe() => ExitCode::SUCCESS,
            Self::Admin(_) | Self::Setup(_) | Self::Output(_) => ExitCode::FAILURE,
        }
    }

    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Output {
    /// Writes text as it is.
    #[expect(
        clippy::unused_self,
        reason = "an answer goes through the output it was given"
    )]
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(Failure::Output)
    }

    /// Writes an answer: as JSON, or what `show` makes of it.
    pub(super) fn answer<T: Serialize>(
        &self,
        answer: &T,
        show: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            self.json_of(answer)? + "\n"
        } else {
            show(answer)
        };
        self.text(&text)
    }

    /// A value as JSON.
    #[expect(
        clippy::unused_self,
        reason = "an answer goes through the output it was given"
    )]
    pub(super) fn json_of<T: Serialize>(&self, value: &T) -> Result<String, Failure> {
        serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))
    }

    /// Shows how far something is, where somebody looks on.
    pub(super) fn progress(&self, text: &str) {
        if !self.json && io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
        }
    }
}

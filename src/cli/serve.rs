//! `layby serve`.

use std::io;
use std::process::ExitCode;

use super::{FileArg, MISUSE, OverrideArgs, configure};
use crate::app::{App, Environment, StartError};
use crate::config::Config;
use crate::runtime::{Notifier, Signals, keep_freed_memory};
use crate::telemetry::Logs;

/// Runs the proxy until it is told to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    overrides: OverrideArgs,
}

const EXAMPLES: &str = "\
Examples:
  layby serve
  layby serve --config /etc/layby/layby.toml
  layby serve --listen 0.0.0.0:5000 --data-dir /srv/layby
  layby serve --offline";

/// Why the proxy could not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no threads could be started: {0}; raise the limits of threads and open files")]
    Runtime(io::Error),
    #[error("signals cannot be listened to: {0}; raise the limit of open files")]
    Signals(io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// How a run ended that was told to end.
enum Ended {
    /// Answers under way were finished, as far as the grace allowed.
    Stopped,
    /// A second signal did not let them.
    Cut,
}

impl Serve {
    /// Exits with 0 after a stop, 1 if the proxy could not run or a second signal cut the stop short, and 2 for a
    /// configuration that cannot be used, before any port is bound.
    pub fn run(self) -> ExitCode {
        let config = match configure(&self.file, self.overrides) {
            Ok(config) => config,
            Err(faults) => {
                eprintln!("{faults}");
                return ExitCode::from(MISUSE);
            }
        };
        let logs = match Logs::start(&config.log) {
            Ok(logs) => logs,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        let status = match serve(config) {
            Ok(Ended::Stopped) => ExitCode::SUCCESS,
            Ok(Ended::Cut) => ExitCode::FAILURE,
            Err(error) => {
                tracing::error!(%error, "cannot serve");
                ExitCode::FAILURE
            }
        };
        drop(logs);
        status
    }
}

fn serve(config: Config) -> Result<Ended, Failure> {
    raise_open_files();
    keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("layby")
        .build()
        .map_err(Failure::Runtime)?;
    let ended = runtime.block_on(run(config));
    // Not waited for: what still blocks a thread may do so for long, and all that must be on disk is.
    runtime.shutdown_background();
    ended
}

async fn run(config: Config) -> Result<Ended, Failure> {
    let manager = manager();
    let mut signals = Signals::listen().map_err(Failure::Signals)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let app = tokio::select! {
        app = App::start(config, Environment::default()) => app?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before it was up");
            return Ok(Ended::Stopped);
        }
    };
    for address in app.addresses() {
        tracing::info!(%address, "listening");
    }
    for address in app.tls_addresses() {
        tracing::info!(%address, "listening with tls");
    }
    if let Some(address) = app.admin_address() {
        tracing::info!(%address, "listening for administration");
    }
    told(manager.ready(&listening(&app)));
    let signal = signals.next().await;
    tracing::info!(signal, "stopping; a second signal stops at once");
    told(manager.stopping("finishing what is under way"));
    tokio::select! {
        clean = app.stop() => {
            tracing::info!(clean, "stopped");
            Ok(Ended::Stopped)
        }
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once");
            Ok(Ended::Cut)
        }
    }
}

/// The service manager that started us, if it wants to be told.
fn manager() -> Notifier {
    let socket = std::env::var_os("NOTIFY_SOCKET");
    Notifier::new(socket.as_deref()).unwrap_or_else(|error| {
        told(Err(error));
        Notifier::nobody()
    })
}

/// A manager that cannot be told is no reason not to serve.
fn told(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn listening(app: &App) -> String {
    let addresses = app.addresses().iter().chain(app.tls_addresses());
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    format!("listening on {}", addresses.join(", "))
}

/// Each client, each blob being sent and each fetch holds a file; the usual soft limit of 1024 is for programs that use
/// `select`.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

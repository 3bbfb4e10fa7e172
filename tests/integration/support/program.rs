//! Layby as a program of its own: what can be killed and measured.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use super::{Setup, soon};

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// Keeps the log flowing.
    _reading: JoinSet<()>,
}

impl Program {
    /// Starts it on `scratch/data`, and waits until it listens.
    pub(crate) async fn start(setup: &Setup, scratch: &Path) -> Self {
        let file = scratch.join("layby.toml");
        std::fs::write(&file, setup.toml(&scratch.join("data"))).expect("the configuration");
        let mut child = Command::new(env!("CARGO_BIN_EXE_layby"))
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let log = Arc::<Mutex<Vec<String>>>::default();
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = soon("listening", listening(&mut lines, &log)).await;
        let mut reading = JoinSet::new();
        let kept = Arc::clone(&log);
        reading.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().push(line);
            }
        });
        Self {
            child,
            address,
            log,
            _reading: reading,
        }
    }

    /// Where clients go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Kills it at once: `kill -9`.
    pub(crate) async fn kill(mut self) {
        soon("death", self.child.kill())
            .await
            .expect("it can be killed");
    }

    /// The most memory that it ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|text| text.trim().strip_suffix(" kB"));
        let kib: u64 = kib
            .and_then(|text| text.trim().parse().ok())
            .expect("VmHWM");
        kib * super::KIB
    }
}

/// The address of the clients' listener, out of the log.
async fn listening(
    lines: &mut Lines<BufReader<ChildStderr>>,
    log: &Mutex<Vec<String>>,
) -> SocketAddr {
    while let Some(line) = lines.next_line().await.expect("the log can be read") {
        log.lock().push(line.clone());
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
            continue;
        };
        let field = |name: &str| match &event["fields"][name] {
            serde_json::Value::Null => event[name].as_str().map(str::to_owned),
            value => value.as_str().map(str::to_owned),
        };
        let message = field("message").unwrap_or_default();
        if message.starts_with("listening") && !line.contains("admin") {
            let address = field("address").and_then(|text| text.parse().ok());
            return address.unwrap_or_else(|| panic!("no address in {line}"));
        }
    }
    panic!("it ended: {:#?}", log.lock());
}

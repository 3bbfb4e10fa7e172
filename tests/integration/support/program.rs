//! Layby as a program of its own: what can be killed and measured.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use super::{Setup, get, soon};

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// Keeps the log flowing.
    _reading: JoinSet<()>,
}

impl Program {
    /// Starts it on `scratch/data`, and waits until it listens.
    pub(crate) async fn start(setup: &Setup, scratch: &Path) -> Self {
        Self::start_with(setup, scratch, &[]).await
    }

    /// The same, with more arguments.
    pub(crate) async fn start_with(setup: &Setup, scratch: &Path, more: &[&str]) -> Self {
        Self::start_as(None, setup, scratch, more).await
    }

    /// The same, as another user.
    pub(crate) async fn start_as(
        user: Option<u32>,
        setup: &Setup,
        scratch: &Path,
        more: &[&str],
    ) -> Self {
        let file = scratch.join("layby.toml");
        std::fs::write(&file, setup.toml(&scratch.join("data"))).expect("the configuration");
        // The release binary where there is one: what is measured is what is shipped.
        let program = std::env::var_os("LAYBY_BIN");
        let mut command =
            Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_layby").into()));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let log = Arc::<Mutex<Vec<String>>>::default();
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = soon("listening", listening(&mut lines, &log, "listening")).await;
        let administration = "listening for administration";
        let admin = soon(administration, listening(&mut lines, &log, administration)).await;
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
            admin,
            log,
            _reading: reading,
        }
    }

    /// Where clients go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator goes.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw).expect("it runs");
        kill_process(id, Signal::TERM).expect("it can be told");
        let status = soon("the end", self.child.wait()).await.expect("a status");
        assert!(status.success(), "{status}: {:#?}", self.log.lock());
    }

    /// Kills it at once: `kill -9`.
    pub(crate) async fn kill(mut self) {
        soon("death", self.child.kill())
            .await
            .expect("it can be killed");
    }

    /// The value of a metric without labels.
    pub(crate) async fn gauge(&self, name: &str) -> i64 {
        let text = get(self.admin, "/metrics").await.expect(200).text();
        let line = text.lines().find_map(|line| {
            let rest = line.strip_prefix("layby_")?.strip_prefix(name)?;
            rest.strip_prefix(' ')?.parse().ok()
        });
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let id = self.child.id().expect("it runs");
        let all = std::fs::read_dir(format!("/proc/{id}/fd")).expect("its descriptors");
        all.count()
    }

    /// The most memory that it ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|text| text.trim().strip_suffix(" kB"));
        let kib: Option<u64> = kib.and_then(|text| text.trim().parse().ok());
        kib.unwrap_or_else(|| panic!("no VmHWM in\n{status}")) * super::KIB
    }
}

/// The address of a listener, out of the next line with this message.
async fn listening(
    lines: &mut Lines<BufReader<ChildStderr>>,
    log: &Mutex<Vec<String>>,
    message: &str,
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
        if field("message").as_deref() == Some(message) {
            let address = field("address").and_then(|text| text.parse().ok());
            return address.unwrap_or_else(|| panic!("no address in {line}"));
        }
    }
    panic!("it ended: {:#?}", log.lock());
}

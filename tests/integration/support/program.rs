//! Layby as a program of its own: what can be killed and measured.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use super::{Setup, eventually, get, soon};

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
        // The release binary where there is one: what is measured is what is shipped.
        let program = std::env::var_os("LAYBY_BIN");
        let mut child = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_layby").into()))
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

    /// Where the operator goes.
    pub(crate) async fn admin(&self) -> SocketAddr {
        eventually("the admin listener", || async {
            let log = self.log.lock();
            log.iter().find_map(|line| listener(line, true))
        })
        .await
    }

    /// The value of a metric without labels.
    pub(crate) async fn gauge(&self, name: &str) -> i64 {
        let text = get(self.admin().await, "/metrics").await.expect(200).text();
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
        self.memory("VmHWM:")
    }

    /// The memory that it holds now, in bytes.
    pub(crate) fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|text| text.trim().strip_suffix(" kB"));
        let kib: Option<u64> = kib.and_then(|text| text.trim().parse().ok());
        kib.unwrap_or_else(|| panic!("no {field} in\n{status}")) * super::KIB
    }
}

/// The address of the clients' listener, out of the log.
async fn listening(
    lines: &mut Lines<BufReader<ChildStderr>>,
    log: &Mutex<Vec<String>>,
) -> SocketAddr {
    while let Some(line) = lines.next_line().await.expect("the log can be read") {
        log.lock().push(line.clone());
        if let Some(address) = listener(&line, false) {
            return address;
        }
    }
    panic!("it ended: {:#?}", log.lock());
}

/// The address that a line of the log says is listened on, for administration or for clients.
fn listener(line: &str, for_admin: bool) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| match &event["fields"][name] {
        serde_json::Value::Null => event[name].as_str().map(str::to_owned),
        value => value.as_str().map(str::to_owned),
    };
    let message = field("message").unwrap_or_default();
    if !message.starts_with("listening") || message.contains("admin") != for_admin {
        return None;
    }
    let address = field("address").and_then(|text| text.parse().ok());
    Some(address.unwrap_or_else(|| panic!("no address in {line}")))
}

//! The program under test, and what its log says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::host::{self, Daemon};
use super::registry::{PASSWORD, USER};

/// A tag is fresh for this long.
const TAG_TTL: &str = "1s";

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("LAYBY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_layby").into(), Into::into)
}

/// Layby, in a process of its own. It ends when it is dropped.
pub(crate) struct Layby {
    daemon: Daemon,
    config: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Layby {
    /// Listens on `port` for `docker.io`, which is at the address `open`, and for `registry.test`, at `locked`, which wants a
    /// login.
    pub(crate) fn start(port: u16, open: &str, locked: &str, folder: &Path) -> Self {
        let config = folder.join("layby.toml");
        let password = folder.join("password");
        fs::write(&password, PASSWORD).unwrap();
        let text = format!(
            r#"
                listen = "127.0.0.1:{port}"
                data_dir = "{data}"

                [admin]
                listen = "none"

                # However full the disk of the machine is that the test runs on.
                [cache]
                min_free = "0B"

                [log]
                format = "json"

                [upstreams."docker.io"]
                url = "{open}"
                tag_ttl = "{TAG_TTL}"

                [upstreams."registry.test"]
                url = "{locked}"
                tag_ttl = "{TAG_TTL}"
                username = "{USER}"
                password_file = "{password}"
            "#,
            data = folder.join("layby").display(),
            password = password.display(),
        );
        fs::write(&config, text).unwrap();
        let log = folder.join("layby.log");
        Self {
            daemon: serve(&config, &log, port),
            config,
            log,
            port,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process, until it is started anew.
    pub(crate) fn process(&self) -> u32 {
        self.daemon.process()
    }

    /// Ends it in good order.
    pub(crate) fn stop(&mut self) {
        self.daemon.stop();
    }

    /// A command of the program on its data directory, while it does not run.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = host::command(&program().display().to_string());
        command.arg(name).arg("--config").arg(&self.config);
        command
    }

    /// Ends it in good order and starts it anew on the same data.
    pub(crate) fn restart(&mut self) {
        self.daemon.stop();
        self.daemon = serve(&self.config, &self.log, self.port);
    }

    /// Writes `new` for `old` in its configuration, which counts from the next start.
    pub(crate) fn edit(&self, old: &str, new: &str) {
        let text = host::read(&self.config);
        assert!(text.contains(old), "no {old} in {text}");
        fs::write(&self.config, text.replace(old, new)).unwrap();
    }

    /// A place in the log, for [`Layby::requests`], behind all that was answered before.
    pub(crate) fn mark(&self) -> usize {
        self.written() + 1
    }

    /// What the log says of the requests since `mark`.
    pub(crate) fn requests(&self, mark: usize) -> Vec<Request> {
        let end = self.written();
        let text = host::read(&self.log);
        requests(text.lines().take(end).skip(mark))
    }

    /// How many lines the log has for what was answered until now. They are written shortly after the answers, in order:
    /// those of one more request tells.
    fn written(&self) -> usize {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let path = format!("/mark/{number}/{}", self.port);
        host::answer(self.port, &path).expect("an answer");
        host::eventually("the line of a request in the log", || {
            let text = host::read(&self.log);
            text.lines().position(|line| line.contains(&path))
        })
    }
}

/// The requests of which these lines of a log tell.
pub(crate) fn requests<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Request> {
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "request")
        .map(Request)
        .collect()
}

fn serve(config: &Path, log: &Path, port: u16) -> Daemon {
    let args = ["serve".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut daemon = Daemon::start(program(), args, &[], log);
    daemon.until(|| host::answers(port, "/healthz"));
    daemon
}

/// A line of the log: one request of a client, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Request(Value);

impl Request {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    pub(crate) fn route(&self) -> &str {
        self.text("route")
    }

    pub(crate) fn upstream(&self) -> &str {
        self.text("upstream")
    }

    pub(crate) fn repository(&self) -> &str {
        self.text("repository")
    }

    /// The tag or digest.
    pub(crate) fn reference(&self) -> &str {
        self.text("reference")
    }

    /// `?ns=`.
    pub(crate) fn ns(&self) -> &str {
        self.text("ns")
    }

    pub(crate) fn cache(&self) -> &str {
        self.text("cache")
    }

    /// Whether all of it was served.
    pub(crate) fn is_whole(&self) -> bool {
        self.0["status"] == 200 && self.text("end") == "complete"
    }
}

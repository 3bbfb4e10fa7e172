//! `layby serve` as a process, and how it is asked.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Instant;

use super::make::UPSTREAM;

/// A server that was started.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Its lines so far.
    seen: Vec<serde_json::Value>,
    /// When it was.
    pub(crate) started: Instant,
}

impl Program {
    /// Starts it on `scratch/data`.
    pub(crate) fn start(scratch: &Path) -> io::Result<Self> {
        let data = scratch.join("data");
        let config = format!(
            "data_dir = {data:?}\nlisten = \"127.0.0.1:0\"\ndefault_upstream = \"{UPSTREAM}\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[cache]\nmin_free = \"1MiB\"\n[log]\nformat = \"json\"\n\
             [upstreams.\"{UPSTREAM}\"]\nurl = \"http://127.0.0.1:9\"\ntag_ttl = \"30d\"\n",
            data = data.display().to_string(),
        );
        let file = scratch.join("layby.toml");
        fs::write(&file, config)?;
        let started = Instant::now();
        let mut child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let stderr = stderr.ok_or_else(|| io::Error::other("it has no log"))?;
        Ok(Self {
            child,
            log: BufReader::new(stderr).lines(),
            seen: Vec::new(),
            started,
        })
    }

    /// A field of the line of its log that says `message`; waits for it where it is still to come.
    pub(crate) fn logged(&mut self, message: &str, field: &str) -> io::Result<String> {
        let mut at = 0;
        loop {
            while self.seen.len() <= at {
                let Some(line) = self.log.next() else {
                    let text = format!("it ended without {message:?}: {:#?}", self.seen);
                    return Err(io::Error::other(text));
                };
                self.seen
                    .push(serde_json::from_str(&line?).unwrap_or_default());
            }
            let event = &self.seen[at];
            let value = |name: &str| match &event["fields"][name] {
                serde_json::Value::Null => &event[name],
                value => value,
            };
            if value("message") == message {
                let value = value(field);
                return Ok(value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned));
            }
            at += 1;
        }
    }

    /// Bytes of memory that are its own.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        let kib = kib.ok_or_else(|| io::Error::other(format!("no RssAnon in\n{status}")))?;
        Ok(kib * 1024)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone already where that fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gets `target`, and fails unless the answer is `expected`.
pub(crate) fn get(address: SocketAddr, target: &str, expected: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(expected) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{target}: {}",
        String::from_utf8_lossy(&answer)
    )))
}

/// The program that is measured.
pub(crate) fn binary() -> PathBuf {
    let named = std::env::var_os("LAYBY_BIN");
    named.map_or_else(|| env!("CARGO_BIN_EXE_layby").into(), PathBuf::from)
}

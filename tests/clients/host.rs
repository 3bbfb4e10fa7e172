//! Programs of this machine: those that answer and end, and those that run until they are dropped.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// For anything that a daemon should come to.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the test can run here: as root, with all of `programs`. If not, says so.
///
/// # Panics
///
/// If not, and `LAYBY_REQUIRE_CLIENTS` is set.
pub(crate) fn has(programs: &[&str]) -> bool {
    let always = ["docker-registry", "htpasswd", "skopeo"];
    let mut missing: Vec<&str> = always
        .iter()
        .chain(programs)
        .copied()
        .filter(|program| !is_installed(program))
        .collect();
    if !geteuid().is_root() {
        missing.push("being root");
    }
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    assert!(
        std::env::var_os("LAYBY_REQUIRE_CLIENTS").is_none(),
        "this test is required, and this machine lacks: {missing}"
    );
    // Not by println!, whose output is kept back when a test passes.
    let _ = writeln!(io::stderr(), "skipped, this machine lacks: {missing}");
    false
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A command that is killed when it takes minutes.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", program]);
    command
}

/// What the command printed.
///
/// # Panics
///
/// If it failed, with all that it printed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// A program that runs until it is dropped, and writes both its outputs to one file.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program`, which ends with this test even if the test is killed.
    pub(crate) fn start<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
        environment: &[(String, String)],
        log: &Path,
    ) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .args(args)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let log = log.to_owned();
        Self { child, log }
    }

    /// Returns once `is_ready` holds.
    ///
    /// # Panics
    ///
    /// If the program ends before, or takes too long.
    pub(crate) fn until(&mut self, mut is_ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_ready() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < PATIENCE,
                "not ready: {ended:?}\n{}",
                read(&self.log)
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends the program, by force if it does not do so itself.
    pub(crate) fn stop(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let asked = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if asked.elapsed() > PATIENCE {
                self.child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            println!("the end of {}:", self.log.display());
            for line in tail.into_iter().rev() {
                println!("  {line}");
            }
        }
    }
}

/// Returns what `look` finds, which must be soon.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The text of a file, which may hold a character that is half written.
pub(crate) fn read(file: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The head of the answer to a `GET`, if there is one.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    Some(fetch(port, path)?.split("\r\n\r\n").next()?.to_owned())
}

/// All of the answer to a `GET`, if there is one.
fn fetch(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// Status and body of the answer to a `GET`, if there is one.
pub(crate) fn answer(port: u16, path: &str) -> Option<(u16, String)> {
    let answer = fetch(port, path)?;
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// Whether a `GET` is answered, with whatever.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    get(port, path).is_some_and(|head| head.starts_with("HTTP/1.1 "))
}

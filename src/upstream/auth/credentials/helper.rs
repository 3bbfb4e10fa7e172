//! Docker credential helpers: `docker-credential-<name> get`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::Instant;

use super::login::{Fingerprint, Login};

/// A helper that is asked for one registry. Its answer is kept for a while, and asked for once for all who wait.
pub(super) struct Helper {
    name: String,
    program: OsString,
    server: String,
    answer: tokio::sync::Mutex<Option<Answer>>,
}

/// What the helper said last. A failure is kept too, so that a broken helper is not run for every request.
struct Answer {
    login: Result<Option<Arc<Login>>, String>,
    made: Instant,
    keep: Duration,
}

/// What a helper prints. Holds a secret, hence no `Debug`.
#[derive(Deserialize)]
struct Printed {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret")]
    secret: SecretString,
}

/// Why a run gave nothing.
enum Failure {
    /// The caller's time was up, which says nothing of the helper.
    Hurried(String),
    /// The helper's fault.
    Own(String),
}

/// What was printed is not credentials.
struct Senseless;

impl Helper {
    /// The helper `name`, found in `directory` or else in `PATH`, to be asked for `server`.
    ///
    /// A name that could lead to any other program is refused.
    pub(super) fn new(name: &str, server: &str, directory: Option<&Path>) -> Result<Self, String> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
            return Err(
                "the name of its credential helper is not letters, digits, '-', '_' and '.': \
                 write \"ecr-login\" for docker-credential-ecr-login"
                    .to_owned(),
            );
        }
        let file = format!("docker-credential-{name}");
        let program = match directory {
            Some(directory) => directory.join(file).into_os_string(),
            None => file.into(),
        };
        Ok(Self {
            name: name.to_owned(),
            program,
            server: server.to_owned(),
            answer: tokio::sync::Mutex::new(None),
        })
    }

    /// Its name, without `docker-credential-`.
    #[cfg(test)]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The login that it knows, if it knows one. The error holds nothing that it printed.
    pub(super) async fn login(&self, deadline: Instant) -> Result<Option<Arc<Login>>, String> {
        let mut answer = self.answer.lock().await;
        if let Some(kept) = answer.as_ref()
            && kept.made.elapsed() < kept.keep
        {
            return kept.login.clone();
        }
        let (login, keep) = match self.run(deadline).await {
            Ok(Some(login)) => (Ok(Some(Arc::new(login))), KEEP),
            Ok(None) => (Ok(None), KEEP_NOTHING),
            Err(Failure::Own(why)) => (Err(why), KEEP_FAILURE),
            Err(Failure::Hurried(why)) => return Err(why),
        };
        *answer = Some(Answer {
            login: login.clone(),
            made: Instant::now(),
            keep,
        });
        login
    }

    /// Makes the next [`Helper::login`] ask again, if the login `refused` is what it said. An answer of this moment
    /// stays: asking again would give the same.
    pub(super) async fn forget(&self, refused: &Fingerprint) {
        let mut answer = self.answer.lock().await;
        let is_refused = answer.as_ref().is_some_and(|kept| {
            kept.made.elapsed() >= KEEP_FAILURE
                && matches!(&kept.login, Ok(Some(login)) if login.fingerprint() == refused)
        });
        if is_refused {
            *answer = None;
        }
    }

    /// Runs the helper once. Dropping the future kills it.
    async fn run(&self, deadline: Instant) -> Result<Option<Login>, Failure> {
        let patience = Instant::now() + PATIENCE;
        let until = patience.min(deadline);
        match tokio::time::timeout_at(until, self.converse()).await {
            Ok(outcome) => outcome.map_err(Failure::Own),
            Err(_) if until == patience => Err(Failure::Own(format!(
                "docker-credential-{} gave no answer within {} s",
                self.name,
                PATIENCE.as_secs()
            ))),
            Err(_) => Err(Failure::Hurried(format!(
                "docker-credential-{} gave no answer in time",
                self.name
            ))),
        }
    }

    async fn converse(&self) -> Result<Option<Login>, String> {
        let failed = |what: &str| format!("docker-credential-{} {what}", self.name);
        let mut child = Command::new(&self.program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("cannot be started: {}", error.kind())))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may close its input without reading it; what it prints decides.
            let _ = stdin.write_all(self.server.as_bytes()).await;
        }
        let mut printed = Vec::with_capacity(MAX_OUTPUT);
        if let Some(stdout) = child.stdout.take() {
            let mut limited = stdout.take(MAX_OUTPUT as u64);
            limited
                .read_to_end(&mut printed)
                .await
                .map_err(|error| failed(&format!("cannot be read: {}", error.kind())))?;
        }
        let printed = SecretSlice::from(printed);
        if printed.expose_secret().len() == MAX_OUTPUT {
            return Err(failed("prints far more than credentials"));
        }
        let status = child
            .wait()
            .await
            .map_err(|error| failed(&format!("cannot be waited for: {}", error.kind())))?;
        if status.success() {
            return read(printed.expose_secret())
                .map_err(|Senseless| failed("prints something that is not credentials"));
        }
        if says_unknown(printed.expose_secret()) {
            return Ok(None);
        }
        let code = status.code().map_or_else(
            || "was killed".to_owned(),
            |code| format!("failed with exit code {code}"),
        );
        Err(failed(&format!("{code}; run it by hand to see why")))
    }
}

/// The printed login; `None` when it is an empty one.
fn read(printed: &[u8]) -> Result<Option<Login>, Senseless> {
    // Without serde's own words, which may quote the secret.
    let printed: Printed = serde_json::from_slice(printed).map_err(|_| Senseless)?;
    if printed.secret.expose_secret().is_empty() {
        return Ok(None);
    }
    Ok(Some(if printed.username.is_empty() {
        Login::identity(printed.secret)
    } else {
        Login::password(&printed.username, printed.secret)
    }))
}

/// The words by which helpers tell docker that they have nothing.
fn says_unknown(printed: &[u8]) -> bool {
    let text = String::from_utf8_lossy(printed.get(..512).unwrap_or(printed));
    text.contains("credentials not found")
}

/// How long a helper may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its login is believed.
const KEEP: Duration = Duration::from_mins(5);
/// How long it is believed to know nothing.
const KEEP_NOTHING: Duration = Duration::from_secs(30);
/// How soon a helper that failed is run again.
const KEEP_FAILURE: Duration = Duration::from_secs(5);
const MAX_OUTPUT: usize = 64 * 1024;
const MAX_NAME: usize = 64;

//! Those that are measured: each a process in front of the origin, with a data directory of its own.

mod direct;
mod distribution;
mod layby;
mod nginx;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Result;
use crate::client::Target;
use crate::content::Content;
use crate::measure;
use crate::process::{self, Process};

pub(crate) use direct::direct;
pub(crate) use distribution::distribution;
pub(crate) use layby::{LAYBY, Layby};
pub(crate) use nginx::{nginx, nginx_cache};

/// The programs of this machine.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) layby: PathBuf,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) distribution: Option<PathBuf>,
    pub(crate) skopeo: Option<PathBuf>,
}

impl Programs {
    /// Looks along the path; Layby is the one that cargo built for this, or what `LAYBY_BIN` names.
    pub(crate) fn find() -> Self {
        let built = || env!("CARGO_BIN_EXE_layby").into();
        Self {
            layby: std::env::var_os("LAYBY_BIN").map_or_else(built, Into::into),
            nginx: process::find("nginx"),
            distribution: process::find("docker-registry"),
            skopeo: process::find("skopeo"),
        }
    }

    /// What is not there.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let wanted = [
            (&self.nginx, "nginx (Debian's nginx-light)"),
            (
                &self.distribution,
                "distribution (Debian's docker-registry)",
            ),
            (&self.skopeo, "skopeo, which the scenario image_pull needs"),
        ];
        let missing = wanted.into_iter().filter(|(program, _)| program.is_none());
        missing.map(|(_, name)| name).collect()
    }

    /// Who is measured, in their own words.
    pub(crate) fn versions(&self) -> Vec<String> {
        let say = |program: &Option<PathBuf>, argument| {
            program
                .as_deref()
                .map(|program| process::version(program, argument))
        };
        let others = [say(&self.nginx, "-v"), say(&self.distribution, "--version")];
        let own = process::version(&self.layby, "--version");
        [Some(own)].into_iter().chain(others).flatten().collect()
    }
}

/// One that is measured. It ends, and its data is removed, when it is dropped.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    process: Option<Process>,
    settings: Vec<Setting>,
    chosen: usize,
    _folder: Option<TempDir>,
}

/// A way in which a contender can be set up, at an address of its own.
#[derive(Debug)]
struct Setting {
    what: String,
    target: Target,
}

impl Contender {
    /// How it is set up, where there is a choice.
    pub(crate) fn setting(&self) -> Option<&str> {
        let setting = &self.settings[self.chosen];
        (self.settings.len() > 1).then_some(setting.what.as_str())
    }

    /// How many ways of setting it up there are.
    pub(crate) fn choices(&self) -> usize {
        self.settings.len()
    }

    /// Decides for one of them.
    pub(crate) fn choose(&mut self, choice: usize) {
        self.chosen = choice;
    }

    /// Where it is asked.
    pub(crate) fn target(&self) -> &Target {
        &self.settings[self.chosen].target
    }

    /// All addresses of it.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.settings.iter().map(|setting| &setting.target)
    }

    /// CPU seconds that it took so far; `NAN` if it is not a process of its own.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let cpu = self
            .process
            .as_ref()
            .map(|process| measure::cpu_seconds(process.pid()));
        cpu.and_then(Result::ok).unwrap_or(f64::NAN)
    }

    /// The most memory that it had resident, in bytes.
    pub(crate) fn peak_resident(&self) -> Result<u64> {
        let process = self.process.as_ref().ok_or("not a process of its own")?;
        measure::peak_resident(process.pid())
    }
}

/// Writes `content` where a server of files finds it under `path`.
fn write_file(root: &Path, path: &str, content: &Content) -> Result<()> {
    Ok(content.write(root, path)?)
}

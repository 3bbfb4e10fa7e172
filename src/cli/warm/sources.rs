//! The images that are named by arguments and in files.

use std::collections::HashMap;
use std::path::Path;

use crate::cli::named::text_of;
use crate::images::{self, Given, Kind};
use crate::oci::PlatformName;

/// Where images are named besides the arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Sources {
    /// File that names images, - for stdin: one per line, compose.yaml, Kubernetes YAML, a Dockerfile, or what docker, podman,
    /// nerdctl, crictl, ctr or kubectl print of theirs
    #[arg(short, long = "file", value_name = "FILE")]
    pub(super) files: Vec<String>,
    /// What the files are, where neither name nor content shows it
    #[arg(long, value_name = "KIND", requires = "files")]
    from: Option<From>,
    /// Argument of the build that a Dockerfile refers to; without a value, that of the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
}

/// See [`Kind`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum From {
    /// One image per line
    List,
    /// A compose file
    Compose,
    /// Manifests, or JSON and YAML of tools
    Kubernetes,
    /// A Dockerfile
    Dockerfile,
}

impl Sources {
    /// The images of all files, and what was passed over in them. What is wrong, with its file and line.
    pub(super) fn read(
        &self,
        platform: Option<&str>,
    ) -> Result<(Vec<String>, Vec<String>), String> {
        let (mut images, mut notes) = (Vec::new(), Vec::new());
        let arguments = self.arguments(platform);
        for file in &self.files {
            let name = if file == "-" { "stdin" } else { file };
            let text = text_of(Path::new(file)).map_err(|error| format!("{name}: {error}"))?;
            let environment = Environment::beside(file);
            let given = Given {
                environment: &|name| environment.get(name),
                arguments: &|name| arguments.get(name).cloned(),
            };
            let found = images::read(&text, file, self.from.map(From::kind), &given)
                .map_err(|error| format!("{name}: {error}"))?;
            if found.images.is_empty() {
                return Err(format!(
                    "{name}: no image is named in it; if it is of another kind than it seems, say so with --from"
                ));
            }
            images.extend(found.images);
            notes.extend(found.notes.iter().map(|note| format!("{name}: {note}")));
        }
        Ok((images, notes))
    }

    /// The arguments of builds: what is given, and what a build sets by itself.
    fn arguments(&self, platform: Option<&str>) -> HashMap<String, String> {
        let mut arguments = HashMap::new();
        let machine = PlatformName::of_this_machine().to_string();
        let target = platform
            .filter(|platform| *platform != "all")
            .unwrap_or(&machine);
        for (of, platform) in [("BUILD", machine.as_str()), ("TARGET", target)] {
            let mut parts = platform.splitn(3, '/');
            arguments.insert(format!("{of}PLATFORM"), platform.to_owned());
            for part in ["OS", "ARCH", "VARIANT"] {
                let value = parts.next().unwrap_or_default().to_owned();
                arguments.insert(format!("{of}{part}"), value);
            }
        }
        for given in &self.build_args {
            let (name, value) = match given.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (given.as_str(), std::env::var(given).ok()),
            };
            if let Some(value) = value {
                arguments.insert(name.to_owned(), value);
            }
        }
        arguments
    }
}

impl From {
    fn kind(self) -> Kind {
        match self {
            Self::List => Kind::List,
            Self::Compose => Kind::Compose,
            Self::Kubernetes => Kind::Kubernetes,
            Self::Dockerfile => Kind::Dockerfile,
        }
    }
}

/// Variables as compose has them: of the environment, else of the `.env` beside the file.
struct Environment(HashMap<String, String>);

impl Environment {
    fn beside(file: &str) -> Self {
        let folder = Path::new(file).parent().filter(|_| file != "-");
        let path = folder.unwrap_or(Path::new("")).join(".env");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self(text.lines().filter_map(assignment).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        let set = std::env::var(name).ok();
        set.or_else(|| self.0.get(name).cloned())
    }
}

/// `NAME=value`, with quotes or without.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = value.strip_prefix(quote)?;
        inner.split_once(quote).map(|(inner, _)| inner)
    });
    let plain = || {
        value
            .split_once(" #")
            .map_or(value, |(value, _)| value.trim_end())
    };
    Some((
        name.trim().to_owned(),
        quoted.unwrap_or_else(plain).to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_compose_reads_them() {
        for (line, value) in [
            ("A=1", Some("1")),
            ("export A = 1 # why", Some("1")),
            ("A=\"x # y\" # why", Some("x # y")),
            ("A='x'", Some("x")),
            ("A=", Some("")),
            ("# A=1", None),
            ("A", None),
        ] {
            let read = assignment(line);
            assert_eq!(
                read,
                value.map(|value| ("A".to_owned(), value.to_owned())),
                "{line}"
            );
        }
    }
}

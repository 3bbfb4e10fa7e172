//! Lists of images out of the files in which people name them: plain lists, compose files, manifests of Kubernetes,
//! Dockerfiles, and what tools print of the images that a machine or a cluster has.
//!
//! Pure functions of a text and of the variables that it is read with: no I/O. They find names and do not judge them. What
//! cannot be understood is an error with its line; what is passed over knowingly is noted. Imports nothing of this crate.

mod compose;
mod dockerfile;
mod expand;
mod list;
mod node;
mod table;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

pub use list::lines;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One image per line, or the table that a tool prints.
    List,
    /// A compose file.
    Compose,
    /// Manifests of Kubernetes, or JSON and YAML that tools print of images.
    Kubernetes,
    /// A Dockerfile.
    Dockerfile,
}

/// The value of a variable, where it has one.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What a text may refer to.
pub struct Given<'a> {
    /// Of the environment, for compose files.
    pub environment: &'a Variables<'a>,
    /// Arguments of the build, for Dockerfiles.
    pub arguments: &'a Variables<'a>,
}

/// What was found in a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The images, as they are named there, each once, in their order.
    pub images: Vec<String>,
    /// What was passed over, and why, with its line.
    pub notes: Vec<String>,
}

/// Why a text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListError {
    /// The line, from 1; `None` where it is none in particular.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What is found while a text is read.
#[derive(Debug, Default)]
struct Finds {
    found: Found,
    seen: HashSet<String>,
}

/// Most bytes of a text.
pub const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Reads `text`, which is of this kind or, without one, of that which its file's name and its content show.
pub fn read(
    text: &str,
    name: &str,
    kind: Option<Kind>,
    given: &Given<'_>,
) -> Result<Found, ListError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut finds = Finds::default();
    match kind.unwrap_or_else(|| told(text, name)) {
        Kind::List => match table::columns(text) {
            Some(columns) => table::read(text, &columns, &mut finds),
            None => list::read(text, &mut finds)?,
        },
        Kind::Dockerfile => dockerfile::read(text, given.arguments, &mut finds)?,
        Kind::Compose => {
            for document in node::read(text)? {
                compose::read(&document, given.environment, &mut finds)?;
            }
        }
        Kind::Kubernetes => {
            for document in node::read(text)? {
                // Nothing but its content tells a compose file from others.
                if kind.is_none() && compose::is_one(&document) {
                    compose::read(&document, given.environment, &mut finds)?;
                } else {
                    walk::read(&document, &mut finds)?;
                }
            }
        }
    }
    Ok(finds.found)
}

/// The kind of a text that nobody names it of.
fn told(text: &str, name: &str) -> Kind {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let is_of = |stem: &str| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let ends = |ending: &str| name.ends_with(ending);
    if is_of("dockerfile") || is_of("containerfile") || ends(".dockerfile") {
        return Kind::Dockerfile;
    }
    if ends(".txt") || ends(".list") || ends(".lst") {
        return Kind::List;
    }
    if ends(".yaml") || ends(".yml") || ends(".json") {
        return Kind::Kubernetes;
    }
    by_content(text)
}

fn by_content(text: &str) -> Kind {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_directive = |line: &str| {
        let directive = line.strip_prefix('#').map(str::trim_start);
        directive.is_some_and(|rest| rest.starts_with("syntax=") || rest.starts_with("escape="))
    };
    for line in lines {
        if is_directive(line) {
            return Kind::Dockerfile;
        }
        if line.starts_with('#') {
            continue;
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        let has_more = line.len() > first.len();
        let is_instruction = |word: &str| first.eq_ignore_ascii_case(word) && has_more;
        let is_key = first.ends_with(':');
        return if is_instruction("FROM") || is_instruction("ARG") {
            Kind::Dockerfile
        } else if line.starts_with(['{', '[']) || is_key || first == "---" || first == "-" {
            Kind::Kubernetes
        } else {
            Kind::List
        };
    }
    Kind::List
}

impl Finds {
    /// An image.
    fn image(&mut self, image: &str, line: usize) -> Result<(), ListError> {
        let image = image.trim();
        if image.contains("{{") {
            return Err(ListError::at(
                line,
                format!("{image:?} is a template; render it first, as with helm template"),
            ));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+[]".contains(c);
        if image.is_empty() || !image.chars().all(is_plain) {
            return Err(ListError::at(
                line,
                format!(
                    "{image:?} is not the name of an image; if this is no list of images, say what it is with --from"
                ),
            ));
        }
        if self.seen.insert(image.to_owned()) {
            self.found.images.push(image.to_owned());
        }
        Ok(())
    }

    /// Something that is passed over.
    fn note(&mut self, line: usize, note: impl fmt::Display) {
        self.found.notes.push(format!("line {line}: {note}"));
    }
}

impl ListError {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            message: message.into(),
        }
    }
}

impl std::error::Error for ListError {}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

//! Dockerfiles: the images that a build pulls (docs.docker.com/reference/dockerfile).

use std::collections::{HashMap, HashSet, VecDeque};

use super::expand::{Escape, expand};
use super::{Finds, ListError, Variables};

/// An instruction with its continuations.
#[derive(Debug)]
struct Instruction {
    line: usize,
    word: String,
    rest: String,
}

/// What a Dockerfile has said so far.
struct Build<'a> {
    given: &'a Variables<'a>,
    /// Arguments from before the first `FROM`, which are those that a `FROM` can use.
    /// One without a value has none until it is given.
    arguments: HashMap<String, Option<String>>,
    stages: HashSet<String>,
    escape: char,
    has_begun: bool,
}

pub(super) fn read(text: &str, given: &Variables<'_>, finds: &mut Finds) -> Result<(), ListError> {
    let escape = directives(text, finds)?;
    let mut build = Build {
        given,
        arguments: HashMap::new(),
        stages: HashSet::new(),
        escape,
        has_begun: false,
    };
    for instruction in instructions(text, escape)? {
        build.instruction(&instruction, finds)?;
    }
    if build.has_begun {
        Ok(())
    } else {
        Err(ListError {
            line: None,
            message: "a Dockerfile has a FROM; there is none here".to_owned(),
        })
    }
}

/// The lines `# key=value` at the very start: the frontend is an image too. The character that continues lines.
fn directives(text: &str, finds: &mut Finds) -> Result<char, ListError> {
    let mut escape = '\\';
    for (number, line) in (1..).zip(text.lines()) {
        let Some((key, value)) = line
            .trim()
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='))
        else {
            break;
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "syntax" => finds.image(value, number)?,
            "escape" => match value.trim() {
                "`" => escape = '`',
                "\\" => {}
                other => {
                    let message = format!("{other:?} cannot escape; it is \\ or `");
                    return Err(ListError::at(number, message));
                }
            },
            "check" => {}
            // An ordinary comment, which ends them.
            _ => break,
        }
    }
    Ok(escape)
}

fn instructions(text: &str, escape: char) -> Result<Vec<Instruction>, ListError> {
    let mut instructions = Vec::new();
    let mut lines = (1_usize..).zip(text.lines());
    while let Some((number, first)) = lines.next() {
        let is_comment = |line: &str| line.trim_start().starts_with('#');
        if first.trim().is_empty() || is_comment(first) {
            continue;
        }
        let mut whole = String::new();
        let mut line = first;
        while let Some(part) = line.trim_end().strip_suffix(escape) {
            whole.push_str(part);
            // Comments and empty lines in between are left out.
            let next = lines.find(|(_, next)| !is_comment(next) && !next.trim().is_empty());
            let Some((_, next)) = next else {
                line = "";
                break;
            };
            line = next;
        }
        whole.push_str(line);
        let whole = whole.trim();
        let (word, rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
        let word = word.to_ascii_uppercase();
        if matches!(word.as_str(), "RUN" | "COPY" | "ADD") {
            let mut ends = heredocs(rest);
            while let Some((end, is_indented)) = ends.pop_front() {
                let is_end = |line: &str| {
                    let line = if is_indented {
                        line.trim_start_matches('\t')
                    } else {
                        line
                    };
                    line.trim_end_matches('\r') == end
                };
                if !lines.any(|(_, line)| is_end(line)) {
                    let message = format!("what begins with <<{end} does not end");
                    return Err(ListError::at(number, message));
                }
            }
        }
        instructions.push(Instruction {
            line: number,
            word,
            rest: rest.trim().to_owned(),
        });
    }
    Ok(instructions)
}

/// The words that end the texts which follow an instruction, and whether tabs before them do not count.
fn heredocs(rest: &str) -> VecDeque<(String, bool)> {
    let read = |word: &str| {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let word = word.strip_prefix("<<")?;
        let (word, is_indented) = match word.strip_prefix('-') {
            Some(word) => (word, true),
            None => (word, false),
        };
        let word = word.trim_matches(['"', '\'']);
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let name: String = word.chars().take_while(|c| is_word(*c)).collect();
        (!name.is_empty()).then_some((name, is_indented))
    };
    rest.split_whitespace().filter_map(read).collect()
}

impl Build<'_> {
    fn instruction(
        &mut self,
        instruction: &Instruction,
        finds: &mut Finds,
    ) -> Result<(), ListError> {
        match instruction.word.as_str() {
            "ARG" if !self.has_begun => self.argument(instruction),
            "FROM" => self.from(instruction, finds),
            "COPY" | "ADD" => self.copied(instruction, finds),
            "RUN" => self.mounted(instruction, finds),
            "ARG" | "CMD" | "LABEL" | "MAINTAINER" | "EXPOSE" | "ENV" | "ENTRYPOINT" | "VOLUME"
            | "USER" | "WORKDIR" | "ONBUILD" | "STOPSIGNAL" | "HEALTHCHECK" | "SHELL" => Ok(()),
            other => Err(ListError::at(
                instruction.line,
                format!("{other:?} is no instruction of a Dockerfile"),
            )),
        }
    }

    fn expand(&self, text: &str, line: usize) -> Result<String, ListError> {
        let value = |name: &str| {
            let is_declared = self.arguments.contains_key(name) || is_predefined(name);
            let given = (self.given)(name).filter(|_| is_declared);
            given.or_else(|| self.arguments.get(name).cloned().flatten())
        };
        expand(text, &value, Escape::Behind(self.escape)).map_err(|error| {
            ListError::at(
                line,
                format!("{error}; give it a value with --build-arg NAME=VALUE"),
            )
        })
    }

    /// `ARG NAME=default`, several of them perhaps.
    fn argument(&mut self, instruction: &Instruction) -> Result<(), ListError> {
        for word in words(&instruction.rest) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.trim_matches(['"', '\'']))),
                None => (word.as_str(), None),
            };
            let value = match ((self.given)(name), default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.expand(default, instruction.line)?),
                (None, None) => None,
            };
            self.arguments.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// `FROM [--platform=…] image [AS name]`.
    fn from(&mut self, instruction: &Instruction, finds: &mut Finds) -> Result<(), ListError> {
        self.has_begun = true;
        let words = words(&instruction.rest);
        let mut words = words.iter().filter(|word| !word.starts_with("--"));
        let Some(image) = words.next() else {
            let message = "FROM names no image".to_owned();
            return Err(ListError::at(instruction.line, message));
        };
        let image = self.expand(image.trim_matches(['"', '\'']), instruction.line)?;
        if image != "scratch" && !self.stages.contains(&image.to_ascii_lowercase()) {
            finds.image(&image, instruction.line)?;
        }
        match (words.next(), words.next()) {
            (None, _) => Ok(()),
            (Some(word), Some(name)) if word.eq_ignore_ascii_case("AS") => {
                self.stages.insert(name.to_ascii_lowercase());
                Ok(())
            }
            (Some(word), _) => Err(ListError::at(
                instruction.line,
                format!("{word:?} is out of place; it is FROM image AS name"),
            )),
        }
    }

    /// `COPY --from=…`: a stage, or an image.
    fn copied(&self, instruction: &Instruction, finds: &mut Finds) -> Result<(), ListError> {
        for word in instruction.rest.split_whitespace() {
            if let Some(from) = word.strip_prefix("--from=") {
                self.source(from, instruction.line, finds)?;
            }
        }
        Ok(())
    }

    /// `RUN --mount=type=bind,from=…`: the same.
    fn mounted(&self, instruction: &Instruction, finds: &mut Finds) -> Result<(), ListError> {
        let words = instruction.rest.split_whitespace();
        for mount in words.filter_map(|word| word.strip_prefix("--mount=")) {
            for option in mount.split(',') {
                if let Some(from) = option.strip_prefix("from=") {
                    self.source(from, instruction.line, finds)?;
                }
            }
        }
        Ok(())
    }

    fn source(&self, from: &str, line: usize, finds: &mut Finds) -> Result<(), ListError> {
        let from = self.expand(from.trim_matches(['"', '\'']), line)?;
        let is_number = from.chars().all(|c| c.is_ascii_digit());
        if is_number || from == "scratch" || self.stages.contains(&from.to_ascii_lowercase()) {
            return Ok(());
        }
        finds.image(&from, line)
    }
}

/// Arguments that a build sets by itself.
fn is_predefined(name: &str) -> bool {
    let rest = name
        .strip_prefix("TARGET")
        .or_else(|| name.strip_prefix("BUILD"));
    matches!(rest, Some("PLATFORM" | "OS" | "ARCH" | "VARIANT"))
}

/// The words of a text; quotes hold one together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in text.chars() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

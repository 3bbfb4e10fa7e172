//! Variables in texts, as compose files and Dockerfiles write them: `$NAME`, `${NAME}`, `${NAME:-default}`.

use super::Variables;

/// Variables within variables.
const DEPTH: usize = 16;

/// How a dollar is written that begins no variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Twice, as in compose files.
    Doubled,
    /// Behind this character, as in Dockerfiles.
    Behind(char),
}

/// `text` with its variables' values. What is wrong with it otherwise, for people.
pub(super) fn expand(
    text: &str,
    variables: &Variables<'_>,
    escape: Escape,
) -> Result<String, String> {
    expand_within(text, variables, escape, DEPTH)
}

fn expand_within(
    text: &str,
    variables: &Variables<'_>,
    escape: Escape,
    depth: usize,
) -> Result<String, String> {
    let depth = depth.checked_sub(1);
    let depth = depth.ok_or_else(|| format!("{text:?} has too many variables within variables"))?;
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let behind = rest.get(c.len_utf8()..).unwrap_or_default();
        let next = behind.chars().next();
        if escape == Escape::Behind(c) && next == Some('$') {
            expanded.push('$');
            rest = behind.get(1..).unwrap_or_default();
        } else if c != '$' {
            expanded.push(c);
            rest = behind;
        } else if escape == Escape::Doubled && next == Some('$') {
            expanded.push('$');
            rest = behind.get(1..).unwrap_or_default();
        } else if next == Some('{') {
            let inner = behind.get(1..).unwrap_or_default();
            let end = closing(inner).ok_or_else(|| format!("{text:?} lacks a closing brace"))?;
            let (inner, behind) = inner.split_at(end);
            let value = braced(inner, variables, escape, depth)?;
            expanded.push_str(&value);
            rest = behind.get(1..).unwrap_or_default();
        } else {
            let (name, behind) = name_of(behind);
            if name.is_empty() {
                return Err(format!("{text:?} has a $ that begins no variable"));
            }
            expanded.push_str(&value_of(name, variables)?);
            rest = behind;
        }
    }
    Ok(expanded)
}

/// The value of what stands in braces.
fn braced(
    inner: &str,
    variables: &Variables<'_>,
    escape: Escape,
    depth: usize,
) -> Result<String, String> {
    let (name, modifier) = name_of(inner);
    let value = variables(name);
    let is_set = value.is_some();
    let has_text = value.as_ref().is_some_and(|value| !value.is_empty());
    let word = |word: &str| expand_within(word, variables, escape, depth);
    let or_nothing = |value: Option<String>| value.unwrap_or_default();
    if name.is_empty() {
        return Err(format!("${{{inner}}} names no variable"));
    }
    let two: String = modifier.chars().take(2).collect();
    let (one, rest) = (
        modifier.chars().next(),
        modifier.get(two.len()..).unwrap_or_default(),
    );
    let short = modifier.get(1..).unwrap_or_default();
    match (two.as_str(), one) {
        ("", _) => value_of(name, variables),
        (":-" | ":?", _) if has_text => Ok(or_nothing(value)),
        (_, Some('-' | '?')) if is_set => Ok(or_nothing(value)),
        (":-", _) => word(rest),
        (":?", _) => Err(missing(name, rest)),
        (":+", _) if has_text => word(rest),
        (_, Some('-')) => word(short),
        (_, Some('?')) => Err(missing(name, short)),
        (_, Some('+')) if is_set => word(short),
        (":+", _) | (_, Some('+')) => Ok(String::new()),
        _ => Err(format!(
            "${{{inner}}} is of a form that is not understood here"
        )),
    }
}

fn value_of(name: &str, variables: &Variables<'_>) -> Result<String, String> {
    variables(name).ok_or_else(|| missing(name, ""))
}

fn missing(name: &str, said: &str) -> String {
    let said = said.trim();
    if said.is_empty() {
        format!("{name} has no value")
    } else {
        format!("{name} has no value: {said}")
    }
}

/// A variable's name, and what follows it.
fn name_of(text: &str) -> (&str, &str) {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !text.starts_with(is_first) {
        return ("", text);
    }
    let end = text.find(|c| !is_rest(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// Where the brace closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

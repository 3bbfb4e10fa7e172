//! YAML that is added to line by line, with a proof that nothing else became different.
//!
//! Writing YAML anew would lose comments and spelling. So lines are put in where a look at the parsed text says they belong,
//! and the result is parsed and compared with what it should be; where it is anything else, nothing is written.

use saphyr_parser::{Event, Parser, ScanError, Span};

use super::piece::Refusal;

/// A value, and where it begins.
#[derive(Debug, Clone)]
struct Node {
    content: Content,
    /// Counted from 0.
    line: usize,
    column: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

/// `text` with `value` in the place that `path` leads to: the last part names a list, whose first element it becomes
/// unless it is one already.
pub(super) fn with_first(text: &str, path: &[&str], value: &str) -> Result<String, Refusal> {
    with(text, path, &Leaf::First(value))
}

/// `text` with a key that has `value`; one that has another is not overruled.
pub(super) fn with_value(text: &str, path: &[&str], value: &str) -> Result<String, Refusal> {
    with(text, path, &Leaf::Value(value))
}

enum Leaf<'a> {
    First(&'a str),
    Value(&'a str),
}

/// A place for new lines: before this line, or at the end.
struct Place {
    line: Option<usize>,
    column: usize,
}

/// Behind everything.
const END: Place = Place {
    line: None,
    column: 0,
};

fn with(text: &str, path: &[&str], leaf: &Leaf<'_>) -> Result<String, Refusal> {
    let old = parse(text)?;
    let root = old.clone().unwrap_or_else(empty_map);
    let mut expected = root.clone();
    if !put(&mut expected, path, leaf)? {
        return Ok(text.to_owned());
    }
    let (lines, place) = addition(&root, path, leaf)?;
    let changed = insert(text, &lines, &place);
    proven(changed, &expected)
}

/// The text, if it reads as it should.
fn proven(text: String, expected: &Node) -> Result<String, Refusal> {
    match parse(&text) {
        Ok(Some(new)) if new == *expected => Ok(text),
        _ => Err(Refusal::new(
            "it is written in a way that cannot be added to with certainty",
        )),
    }
}

/// Puts the leaf into the parsed value. Whether that changed anything.
fn put(node: &mut Node, path: &[&str], leaf: &Leaf<'_>) -> Result<bool, Refusal> {
    let Some((key, rest)) = path.split_first() else {
        return put_leaf(node, leaf);
    };
    let Content::Map(entries) = &mut node.content else {
        return Err(Refusal::new(format!(
            "it has no mapping where {key:?} belongs"
        )));
    };
    let at = entries.iter().position(|(name, _)| name.is(key));
    let at = at.unwrap_or_else(|| {
        let value = match (rest.is_empty(), leaf) {
            (false, _) => empty_map(),
            (true, Leaf::First(_)) => node_of(Content::List(Vec::new())),
            (true, Leaf::Value(_)) => node_of(Content::Scalar(String::new())),
        };
        // New keys come first, as `addition` puts them.
        entries.insert(0, (node_of(Content::Scalar((*key).to_owned())), value));
        0
    });
    match entries.get_mut(at) {
        Some((_, value)) => put(value, rest, leaf),
        None => Ok(false),
    }
}

fn put_leaf(node: &mut Node, leaf: &Leaf<'_>) -> Result<bool, Refusal> {
    match (&mut node.content, leaf) {
        (Content::List(items), Leaf::First(value)) => {
            if items.iter().any(|item| item.is(value)) {
                return Ok(false);
            }
            items.insert(0, node_of(Content::Scalar((*value).to_owned())));
            Ok(true)
        }
        (Content::Scalar(old), Leaf::Value(value)) if old.is_empty() => {
            old.push_str(value);
            Ok(true)
        }
        (Content::Scalar(old), Leaf::Value(value)) if old == value => Ok(false),
        (_, Leaf::First(value) | Leaf::Value(value)) => Err(Refusal::new(format!(
            "it has something else where {value} belongs"
        ))),
    }
}

/// The lines that are missing, and their place.
fn addition(root: &Node, path: &[&str], leaf: &Leaf<'_>) -> Result<(Vec<String>, Place), Refusal> {
    let mut node = root;
    for (depth, key) in path.iter().enumerate() {
        let Content::Map(entries) = &node.content else {
            break;
        };
        let Some((_, value)) = entries.iter().find(|(name, _)| name.is(key)) else {
            let place = entries.first().map_or(END, |(name, _)| Place {
                line: Some(name.line),
                column: name.column,
            });
            return Ok((nested(path.get(depth..).unwrap_or_default(), leaf), place));
        };
        node = value;
    }
    if let Content::List(items) = &node.content
        && let (Some(first), Leaf::First(value)) = (items.first(), leaf)
    {
        // Of the first element its dash, two columns before it as people write it; if it is not there, that will be seen.
        let place = Place {
            line: Some(first.line),
            column: first.column.saturating_sub(2),
        };
        return Ok((vec![format!("- {}", quoted(value))], place));
    }
    let key = path.join(".");
    Err(Refusal::new(format!("its {key} is there, and empty")))
}

/// The keys of `path`, one in the other, and the leaf in the last.
fn nested(path: &[&str], leaf: &Leaf<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (depth, key) in path.iter().enumerate() {
        let indent = "  ".repeat(depth);
        // As people write it: quotes where the key is not a word.
        let is_word = key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let key = if is_word {
            (*key).to_owned()
        } else {
            quoted(key)
        };
        lines.push(format!("{indent}{key}:"));
    }
    let indent = "  ".repeat(path.len());
    match leaf {
        Leaf::First(value) => lines.push(format!("{indent}- {}", quoted(value))),
        Leaf::Value(value) => {
            if let Some(last) = lines.last_mut() {
                *last = format!("{last} {}", quoted(value));
            }
        }
    }
    lines
}

fn insert(text: &str, new: &[String], place: &Place) -> String {
    let indent = " ".repeat(place.column);
    let new: Vec<String> = new.iter().map(|line| format!("{indent}{line}\n")).collect();
    let new = new.concat();
    let Some(line) = place.line else {
        let gap = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        return format!("{text}{gap}{new}");
    };
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let (before, behind) = text.split_at(before);
    format!("{before}{new}{behind}")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn empty_map() -> Node {
    node_of(Content::Map(Vec::new()))
}

fn node_of(content: Content) -> Node {
    Node {
        content,
        line: 0,
        column: 0,
    }
}

impl Node {
    fn is(&self, text: &str) -> bool {
        matches!(&self.content, Content::Scalar(value) if value == text)
    }
}

/// The one document of `text`, or none where it holds comments alone.
fn parse(text: &str) -> Result<Option<Node>, Refusal> {
    let mut documents = Vec::new();
    let mut events = Parser::new_from_str(text);
    while let Some((event, span)) = next(&mut events)? {
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event => documents.push(node(&mut events, event, span, 0)?),
        }
    }
    match documents.len() {
        0 => Ok(None),
        1 => Ok(documents.pop()),
        _ => Err(Refusal::new("it holds several YAML documents")),
    }
}

fn node<'a>(
    events: &mut impl Iterator<Item = Result<(Event<'a>, Span), ScanError>>,
    event: Event<'a>,
    span: Span,
    depth: usize,
) -> Result<Node, Refusal> {
    if depth > DEEPEST {
        return Err(Refusal::new("its YAML is nested too deeply"));
    }
    let plain = || {
        Refusal::new(
            "it has anchors, aliases or tags, with which it cannot be added to with certainty",
        )
    };
    let content = match event {
        Event::Scalar(text, _, 0, None) => Content::Scalar(text.into_owned()),
        Event::SequenceStart(0, None) => {
            let mut items = Vec::new();
            loop {
                match next(events)? {
                    Some((Event::SequenceEnd, _)) | None => break,
                    Some((event, span)) => items.push(node(events, event, span, depth + 1)?),
                }
            }
            Content::List(items)
        }
        Event::MappingStart(0, None) => {
            let mut entries = Vec::new();
            loop {
                let key = match next(events)? {
                    Some((Event::MappingEnd, _)) | None => break,
                    Some((event, span)) => node(events, event, span, depth + 1)?,
                };
                let Some((event, span)) = next(events)? else {
                    break;
                };
                if entries.iter().any(|(other, _)| *other == key) {
                    return Err(Refusal::new("it has one key twice"));
                }
                entries.push((key, node(events, event, span, depth + 1)?));
            }
            Content::Map(entries)
        }
        _ => return Err(plain()),
    };
    Ok(Node {
        content,
        line: span.start.line().saturating_sub(1),
        column: span.start.col(),
    })
}

fn next<'a>(
    events: &mut impl Iterator<Item = Result<(Event<'a>, Span), ScanError>>,
) -> Result<Option<(Event<'a>, Span)>, Refusal> {
    events
        .next()
        .transpose()
        .map_err(|error| Refusal::new(format!("it is not valid YAML: {error}")))
}

/// No client's file is near it.
const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str) -> Result<String, Refusal> {
        with_first(text, &["mirrors", "*", "endpoint"], "new")
    }

    #[test]
    fn lines_are_put_where_they_belong() {
        let whole = "mirrors:\n  \"*\":\n    endpoint:\n      - \"new\"\n";
        for (old, new) in [
            ("# nothing yet\n", format!("# nothing yet\n{whole}")),
            (
                "# ours\nconfigs: # keep\n  r.test: {}\n",
                format!("# ours\n{whole}configs: # keep\n  r.test: {{}}\n"),
            ),
            (
                "mirrors:\n    # hub\n    docker.io:\n        endpoint: [\"a\"]\n",
                "mirrors:\n    # hub\n    \"*\":\n      endpoint:\n        - \"new\"\n    docker.io:\n        endpoint: [\"a\"]\n".to_owned(),
            ),
            (
                "mirrors:\n  '*':\n    endpoint:\n    - a # first\n    - b\n",
                "mirrors:\n  '*':\n    endpoint:\n    - \"new\"\n    - a # first\n    - b\n".to_owned(),
            ),
            (
                "mirrors:\n  \"*\":\n    rewrite:\n      \"^a\": b\n",
                "mirrors:\n  \"*\":\n    endpoint:\n      - \"new\"\n    rewrite:\n      \"^a\": b\n".to_owned(),
            ),
            (
                "---\nmirrors:\n  \"*\":\n    endpoint:\n      - old",
                "---\nmirrors:\n  \"*\":\n    endpoint:\n      - \"new\"\n      - old".to_owned(),
            ),
        ] {
            assert_eq!(merged(old).unwrap(), new, "{old}");
            assert_eq!(merged(&new).unwrap(), new, "{old}, a second time");
        }
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        for (text, why) in [
            ("{mirrors: {}}\n", "certainty"),
            ("mirrors: {a: {}}\n", "certainty"),
            ("mirrors:\n  \"*\":\n    endpoint: [a]\n", "certainty"),
            ("mirrors:\n", "no mapping"),
            ("mirrors:\n  \"*\":\n    endpoint: []\n", "empty"),
            ("mirrors:\n  \"*\":\n    endpoint: a\n", "something else"),
            ("a: &x {}\nb: *x\n", "anchors"),
            ("a: 1\n---\nb: 1\n", "several"),
            ("- a\n", "no mapping"),
            ("a: [\n", "not valid YAML"),
            ("mirrors: {}\nmirrors: {}\n", "twice"),
            ("a: \"\n", "not valid YAML"),
        ] {
            let refusal = merged(text).unwrap_err();
            assert!(refusal.why.contains(why), "{text}: {refusal:?}");
        }
    }

    #[test]
    fn a_text_that_reads_as_something_else_is_never_given() {
        let expected = parse("a: [b, c]\n").unwrap().unwrap();
        assert!(proven("a:\n- b\n- \"c\"\n".to_owned(), &expected).is_ok());
        for text in ["a: [c, b]\n", "a: [b]\n", "a: b c\n", "", "a: ["] {
            assert!(proven(text.to_owned(), &expected).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_there_is_not_overruled() {
        let path = ["configs", "h:1", "tls", "ca_file"];
        let new = with_value("", &path, "/ca").unwrap();
        assert_eq!(
            new,
            "configs:\n  \"h:1\":\n    tls:\n      ca_file: \"/ca\"\n"
        );
        assert_eq!(with_value(&new, &path, "/ca").unwrap(), new);
        assert!(with_value(&new, &path, "/other").is_err());
    }
}

//! YAML and JSON as trees that know their lines. An alias is the very node that it stands for, so none multiplies anything.

use std::collections::{HashMap, HashSet};
use std::ptr;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScanError};

use super::ListError;

/// A value, and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
    /// Values within values, aliases followed.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    List(Vec<Rc<Node>>),
    /// In the order of the text.
    Map(Vec<(String, Rc<Node>)>),
}

/// Values within values.
const DEPTH: usize = 128;
/// Maps in which a key is looked for that are merged into one, `<<` within `<<`.
const MERGES: usize = 1024;

impl Node {
    fn new(line: usize, value: Value) -> Self {
        let below = match &value {
            Value::Text(_) => None,
            Value::List(list) => list.iter().map(|node| node.depth).max(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.depth).max(),
        };
        Self {
            line,
            value,
            depth: below.unwrap_or_default() + 1,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Rc<Self>] {
        match &self.value {
            Value::List(list) => list,
            _ => &[],
        }
    }

    pub(super) fn entries(&self) -> &[(String, Rc<Self>)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key, of the map itself or of one that is merged into it. None is looked at twice: lists of aliases
    /// of maps with such lists lead to the same ones again and again.
    pub(super) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        let (mut waiting, mut seen) = (vec![self], HashSet::new());
        while let Some(map) = waiting.pop() {
            if let Some(own) = map.own(key) {
                return Some(own);
            }
            if seen.len() >= MERGES {
                return None;
            }
            let is_new = seen.insert(ptr::from_ref(map));
            let Some(merged) = map.own("<<").filter(|_| is_new) else {
                continue;
            };
            match &merged.value {
                // The first counts most.
                Value::List(maps) => waiting.extend(maps.iter().take(MERGES).rev().map(Rc::as_ref)),
                _ => waiting.push(merged),
            }
        }
        None
    }

    fn own(&self, key: &str) -> Option<&Rc<Self>> {
        let mut entries = self.entries().iter();
        let found = entries.find(|(own, _)| own == key);
        found.map(|(_, value)| value)
    }
}

/// The documents of a text.
pub(super) fn read(text: &str) -> Result<Vec<Rc<Node>>, ListError> {
    let is_json = text.trim_start().starts_with(['{', '[']);
    if is_json && let Ok(documents) = json(text) {
        return Ok(documents);
    }
    yaml(text)
}

/// JSON documents one behind the other, as tools print them a line each. Knows no lines.
fn json(text: &str) -> Result<Vec<Rc<Node>>, serde_json::Error> {
    let documents = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    documents.map(|document| Ok(of_json(document?))).collect()
}

/// As deep as its reader lets values be, which is 128.
fn of_json(value: serde_json::Value) -> Rc<Node> {
    let value = match value {
        serde_json::Value::Null => Value::Text(String::new()),
        serde_json::Value::Bool(flag) => Value::Text(flag.to_string()),
        serde_json::Value::Number(number) => Value::Text(number.to_string()),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(list) => Value::List(list.into_iter().map(of_json).collect()),
        serde_json::Value::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| (key, of_json(value)));
            Value::Map(entries.collect())
        }
    };
    Rc::new(Node::new(1, value))
}

/// A list or a map that is being read.
struct Open {
    line: usize,
    anchor: usize,
    is_map: bool,
    /// Keys and values in turn, of a map.
    items: Vec<Rc<Node>>,
}

#[derive(Default)]
struct Tree {
    documents: Vec<Rc<Node>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
}

fn yaml(text: &str) -> Result<Vec<Rc<Node>>, ListError> {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| broken(text, &error))?;
        let line = span.start.line();
        match event {
            Event::Scalar(text, _, anchor, _) => {
                tree.add(anchor, line, Value::Text(text.into_owned()))?;
            }
            Event::SequenceStart(anchor, _) => tree.begin(line, anchor, false)?,
            Event::MappingStart(anchor, _) => tree.begin(line, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => tree.end()?,
            Event::Alias(anchor) => {
                let node = tree.anchors.get(&anchor).map(Rc::clone);
                let node = node.ok_or_else(|| {
                    ListError::at(line, "an alias stands for something that it is a part of")
                })?;
                tree.put(node);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
    Ok(tree.documents)
}

fn broken(text: &str, error: &ScanError) -> ListError {
    let line = error.marker().line();
    let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let hint = if written.contains("{{") {
        "; it is a template, render it first, as with helm template"
    } else {
        ""
    };
    ListError::at(line, format!("not YAML: {}{hint}", error.info()))
}

fn too_deep(line: usize) -> ListError {
    ListError::at(line, format!("values within values deeper than {DEPTH}"))
}

impl Tree {
    fn begin(&mut self, line: usize, anchor: usize, is_map: bool) -> Result<(), ListError> {
        if self.open.len() >= DEPTH {
            return Err(too_deep(line));
        }
        self.open.push(Open {
            line,
            anchor,
            is_map,
            items: Vec::new(),
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), ListError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = if open.is_map {
            let mut items = open.items.into_iter();
            let mut entries = Vec::new();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                let Some(text) = key.text() else {
                    return Err(ListError::at(
                        key.line,
                        "a key that is no text; if this is a template, render it first, as with helm template",
                    ));
                };
                entries.push((text.to_owned(), value));
            }
            Value::Map(entries)
        } else {
            Value::List(open.items)
        };
        self.add(open.anchor, open.line, value)
    }

    fn add(&mut self, anchor: usize, line: usize, value: Value) -> Result<(), ListError> {
        let node = Rc::new(Node::new(line, value));
        // Aliases make trees deeper than they look.
        if node.depth > DEPTH {
            return Err(too_deep(line));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.put(node);
        Ok(())
    }

    fn put(&mut self, node: Rc<Node>) {
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.documents.push(node),
        }
    }
}

//! A TOML text as sections whose values are taken one by one, so that one reading finds every fault.
//!
//! Deserialising into structs would stop at the first unknown key or wrong type; an operator would then learn of the
//! second one at the next start.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Fault, Faults, Wrong};

/// A text being read, and what is wrong with it so far.
pub(super) struct Document<'t> {
    text: &'t str,
    faults: RefCell<Vec<Fault>>,
}

/// One table of a document, present or not. Whoever has asked for all keys that it may hold calls [`Section::close`].
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    table: Option<&'d DeTable<'d>>,
    span: Option<Range<usize>>,
    asked: RefCell<Vec<&'static str>>,
}

type Value<'d> = Spanned<DeValue<'d>>;

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            faults: RefCell::new(Vec::new()),
        }
    }

    /// Notes a text that is not TOML.
    pub(super) fn syntax(&self, error: &toml::de::Error) {
        let line = error.span().map(|span| self.line(&span));
        let wrong = Wrong::new(error.message(), "this line is not valid TOML");
        self.fault(wrong.of("", line));
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// What is wrong, if anything is.
    pub(super) fn faults(&self) -> Option<Faults> {
        Faults::some(self.faults.borrow().clone())
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        before.bytes().filter(|&b| b == b'\n').count() + 1
    }
}

impl<'d> Section<'d> {
    pub(super) fn root(document: &'d Document<'d>, table: &'d Spanned<DeTable<'d>>) -> Self {
        Self::new(document, String::new(), Some(table.get_ref()), None)
    }

    fn new(
        document: &'d Document<'d>,
        path: String,
        table: Option<&'d DeTable<'d>>,
        span: Option<Range<usize>>,
    ) -> Self {
        Self {
            document,
            path,
            table,
            span,
            asked: RefCell::default(),
        }
    }

    /// Whether the file has it.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Whether `key` is written, right or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether `key` is written as an empty list.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        value
            .and_then(|value| value.get_ref().as_array())
            .is_some_and(|array| array.is_empty())
    }

    /// Path of a key in this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The table under `key`; one that is not written when there is none.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let path = self.path_of(key);
        let Some(value) = self.get(key) else {
            return Self::new(self.document, path, None, None);
        };
        let table = value.get_ref().as_table();
        if table.is_none() {
            let header = format!("write it as a section, [{path}]");
            self.fault_in(key, value, Wrong::new("is not a section", header));
        }
        Self::new(self.document, path, table, Some(value.span()))
    }

    /// The tables of this table, by their keys.
    pub(super) fn sections(&self) -> Vec<(&'d str, Self)> {
        let mut sections = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let path = self.path_of(&format!("{:?}", key.get_ref()));
            match value.get_ref().as_table() {
                Some(table) => {
                    let section = Self::new(self.document, path, Some(table), Some(key.span()));
                    sections.push((key.get_ref().as_ref(), section));
                }
                None => self.document.fault(
                    Wrong::new(
                        "is not a section",
                        format!("write it as a section, [{path}]"),
                    )
                    .of(path.clone(), Some(self.document.line(&key.span()))),
                ),
            }
        }
        sections
    }

    /// The tables of the list under `key`, written `[[section.key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let path = self.path_of(key);
        let wrong = || {
            let header = format!("write it as sections, [[{path}]]");
            Wrong::new("is not a list of sections", header)
        };
        let Some(array) = value.get_ref().as_array() else {
            self.fault_in(key, value, wrong());
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item.get_ref().as_table() {
                Some(table) => {
                    let section = Self::new(self.document, path, Some(table), Some(item.span()));
                    tables.push(section);
                }
                None => self.fault_in(key, item, wrong()),
            }
        }
        tables
    }

    /// A section that the file does not have, named like one of [`Section::sections`].
    pub(super) fn absent(&self, key: &str) -> Self {
        let path = self.path_of(&format!("{key:?}"));
        Self::new(self.document, path, None, None)
    }

    /// The value of `key` as `parse` reads it; `None` when it is not written or not right.
    pub(super) fn text<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.get(key)?;
        self.parsed(key, value, &parse)
    }

    /// The values of `key`, a list or one alone; `None` when it is not written. Values that are not right are left out.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let value = self.get(key)?;
        Some(match value.get_ref().as_array() {
            Some(array) => array
                .iter()
                .filter_map(|item| self.parsed(key, item, &parse))
                .collect(),
            None => self.parsed(key, value, &parse).into_iter().collect(),
        })
    }

    /// The value of `key` as yes or no.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let wrong = Wrong::new("is not true or false", "write true or false without quotes");
            self.fault_in(key, value, wrong);
        }
        flag
    }

    /// The value of `key` as a number within `range`.
    pub(super) fn number(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let value = self.get(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|integer| u32::from_str_radix(integer.as_str(), integer.radix()).ok())
            .filter(|number| range.contains(number));
        if number.is_none() {
            let instead = format!(
                "write a whole number from {} to {}",
                range.start(),
                range.end()
            );
            self.fault_in(key, value, Wrong::new("is not a number in range", instead));
        }
        number
    }

    /// Notes that the value of `key`, or its absence, is wrong.
    pub(super) fn fault(&self, key: &str, wrong: Wrong) {
        let span = self
            .table
            .and_then(|table| table.get(key))
            .map(Spanned::span)
            .or_else(|| self.span.clone());
        let line = span.map(|span| self.document.line(&span));
        self.document.fault(wrong.of(self.path_of(key), line));
    }

    /// Notes that the section itself is wrong.
    pub(super) fn fault_here(&self, wrong: Wrong) {
        let line = self.span.as_ref().map(|span| self.document.line(span));
        self.document.fault(wrong.of(self.path.clone(), line));
    }

    /// Notes every key that was not asked for.
    pub(super) fn close(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let instead = match nearest(name, asked.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the keys here are {}", asked.join(", ")),
            };
            let line = Some(self.document.line(&key.span()));
            let wrong = Wrong::new("is not a key of Layby", instead);
            self.document.fault(wrong.of(self.path_of(name), line));
        }
    }

    fn get(&self, key: &'static str) -> Option<&'d Value<'d>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.table?.get(key)
    }

    fn parsed<T>(
        &self,
        key: &'static str,
        value: &Value<'d>,
        parse: &impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let result = match value.get_ref() {
            DeValue::String(text) => parse(text),
            DeValue::Integer(number) => unquoted(parse, number.as_str()),
            DeValue::Float(number) => unquoted(parse, number.as_str()),
            other => Err(Wrong::new(
                format!("is of the type {}", other.type_str()),
                "write text in double quotes",
            )),
        };
        result
            .map_err(|wrong| self.fault_in(key, value, wrong))
            .ok()
    }

    fn fault_in(&self, key: &str, value: &Value<'d>, wrong: Wrong) {
        let line = Some(self.document.line(&value.span()));
        self.document.fault(wrong.of(self.path_of(key), line));
    }
}

/// A number where text belongs: the fault that the text would be, or else that it lacks its quotes.
fn unquoted<T>(parse: &impl Fn(&str) -> Result<T, Wrong>, number: &str) -> Result<T, Wrong> {
    parse(number)?;
    Err(Wrong::new("is a number", "write the same in double quotes"))
}

/// The one of `names` that `name` is most likely a slip of.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len() / 6)
        .min()
        .map(|(_, candidate)| candidate)
}

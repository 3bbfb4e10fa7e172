//! TOML that is changed where it has to be, and keeps its order, spaces and comments everywhere else.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::piece::Refusal;

/// `text` as a document.
pub(super) fn parse(text: &str) -> Result<DocumentMut, Refusal> {
    text.parse()
        .map_err(|error| Refusal::new(format!("it is not valid TOML: {error}")))
}

/// The table at `path`, made where there is none.
pub(super) fn table_at<'a>(
    document: &'a mut DocumentMut,
    path: &[&str],
) -> Result<&'a mut dyn TableLike, Refusal> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (depth, key) in path.iter().enumerate() {
        let is_last = depth + 1 == path.len();
        let item = table.entry(key).or_insert_with(|| {
            let mut new = Table::new();
            // Only what has keys of its own gets a header.
            new.set_implicit(!is_last);
            if is_last {
                new.decor_mut().set_prefix("\n");
            }
            Item::Table(new)
        });
        table = item
            .as_table_like_mut()
            .ok_or_else(|| Refusal::new(format!("its {} is no table", path[..=depth].join("."))))?;
    }
    Ok(table)
}

/// The array of strings `key` of a table, made where there is none.
pub(super) fn strings<'a>(
    table: &'a mut dyn TableLike,
    key: &str,
) -> Result<&'a mut Array, Refusal> {
    let item = table
        .entry(key)
        .or_insert_with(|| Item::Value(Value::Array(Array::new())));
    item.as_array_mut()
        .filter(|array| array.iter().all(Value::is_str))
        .ok_or_else(|| {
            Refusal::new(format!(
                "its {key} is something else than a list of strings"
            ))
        })
}

/// Puts `value` first into an array, spaced as what is there, unless it is there.
pub(super) fn put_first(array: &mut Array, value: &str) {
    if array.iter().any(|item| item.as_str() == Some(value)) {
        return;
    }
    let Some(first) = array.get_mut(0) else {
        array.push(value);
        return;
    };
    let prefix = first.decor().prefix().and_then(|prefix| prefix.as_str());
    let prefix = prefix.unwrap_or_default().to_owned();
    if prefix.is_empty() {
        first.decor_mut().set_prefix(" ");
    }
    let mut new = Value::from(value);
    new.decor_mut().set_prefix(prefix);
    array.insert_formatted(0, new);
}

/// Sets a key that is not there; one that says something else is not overruled.
pub(super) fn set(table: &mut dyn TableLike, key: &str, value: &Value) -> Result<(), Refusal> {
    let Some(old) = table.get(key) else {
        table.insert(key, Item::Value(value.clone()));
        return Ok(());
    };
    let same = match (old.as_bool(), value.as_bool()) {
        (Some(old), Some(new)) => old == new,
        _ => old.as_str().is_some() && old.as_str() == value.as_str(),
    };
    if same {
        return Ok(());
    }
    let (old, new) = (old.to_string(), value.to_string());
    Err(Refusal::new(format!(
        "it says {key} = {}, where {key} = {} is needed",
        old.trim(),
        new.trim()
    )))
}

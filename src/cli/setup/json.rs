//! JSON that is changed where it has to be, and left as it is everywhere else.

use serde_json::Value;

use super::piece::Refusal;

/// `text`, an object, with the string `value` first in its array `key`, unless one there is the `same`.
pub(super) fn with_first(
    text: &str,
    key: &str,
    value: &str,
    same: impl Fn(&str) -> bool,
) -> Result<String, Refusal> {
    let parsed: Value = serde_json::from_str(text)
        .map_err(|error| Refusal::new(format!("it is not valid JSON: {error}")))?;
    let Value::Object(object) = parsed else {
        return Err(Refusal::new("it holds something else than a JSON object"));
    };
    let quoted = Value::from(value).to_string();
    let changed = match object.get(key) {
        None => with_key(text, key, &quoted, object.is_empty()),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            if items.iter().filter_map(Value::as_str).any(same) {
                return Ok(text.to_owned());
            }
            with_element(text, key, &quoted, items.is_empty())
        }
        Some(_) => {
            return Err(Refusal::new(format!(
                "its {key:?} is something else than a list of strings"
            )));
        }
    };
    let mut expected = object;
    let list = expected
        .entry(key)
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(items) = list {
        items.insert(0, value.into());
    }
    changed
        .filter(|text| serde_json::from_str::<Value>(text).ok() == Some(Value::Object(expected)))
        .ok_or_else(|| {
            Refusal::new("it is written in a way that cannot be added to with certainty")
        })
}

/// With `key` before the first key that there is.
fn with_key(text: &str, key: &str, quoted: &str, is_empty: bool) -> Option<String> {
    let open = text.find('{')? + 1;
    let entry = format!("{}: [{quoted}]", Value::from(key));
    if is_empty {
        let close = text.rfind('}')?;
        return Some(format!("{}\n  {entry}\n{}", &text[..open], &text[close..]));
    }
    Some(before_next(text, open, &entry))
}

/// With one more element before the first of the array `key`.
fn with_element(text: &str, key: &str, quoted: &str, is_empty: bool) -> Option<String> {
    let open = last_array(text, key)? + 1;
    if is_empty {
        return Some(format!("{}{quoted}{}", &text[..open], &text[open..]));
    }
    Some(before_next(text, open, quoted))
}

/// With `entry` and a comma before what follows `open`, spaced as that is.
fn before_next(text: &str, open: usize, entry: &str) -> String {
    let (before, behind) = text.split_at(open);
    let next = behind.trim_start();
    let space = &behind[..behind.len() - next.len()];
    let gap = if space.contains('\n') { space } else { " " };
    format!("{before}{space}{entry},{gap}{next}")
}

/// Where the array begins that the outermost object has under `key`, the last where it has several.
fn last_array(text: &str, key: &str) -> Option<usize> {
    let quoted = Value::from(key).to_string();
    let mut depth = 0_usize;
    let mut found = None;
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_string(text, at)?;
                let rest = text.get(end..)?.trim_start();
                if depth == 1
                    && text.get(at..end) == Some(&quoted)
                    && let Some(value) = rest.strip_prefix(':')
                    && let value = value.trim_start()
                    && value.starts_with('[')
                {
                    found = Some(text.len() - value.len());
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Just behind the string that begins at `start`.
fn end_of_string(text: &str, start: usize) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start + 1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str) -> Result<String, Refusal> {
        with_first(text, "m", "new", |item| item == "new")
    }

    #[test]
    fn one_element_is_added_and_nothing_else_changes() {
        for (old, new) in [
            ("{}", "{\n  \"m\": [\"new\"]\n}"),
            ("{ }\n", "{\n  \"m\": [\"new\"]\n}\n"),
            (r#"{"a": 1}"#, r#"{"m": ["new"], "a": 1}"#),
            (r#"{"m": []}"#, r#"{"m": ["new"]}"#),
            (r#"{"m": ["old"]}"#, r#"{"m": ["new", "old"]}"#),
            (r#"{ "m" : [ "old" ] }"#, r#"{ "m" : [ "new", "old" ] }"#),
            (r#"{"m": ["old", "new"]}"#, r#"{"m": ["old", "new"]}"#),
            (
                "{\n\t\"b\": {\"m\": [\"x\"]},\n\t\"m\": [\n\t\t\"old\"\n\t]\n}\n",
                "{\n\t\"b\": {\"m\": [\"x\"]},\n\t\"m\": [\n\t\t\"new\",\n\t\t\"old\"\n\t]\n}\n",
            ),
            (
                "{\n    \"s\": \"a \\\" \\\\\",\n    \"n\": 1.50\n}",
                "{\n    \"m\": [\"new\"],\n    \"s\": \"a \\\" \\\\\",\n    \"n\": 1.50\n}",
            ),
            (
                r#"{"x": "\"m\": [", "m": ["old"]}"#,
                r#"{"x": "\"m\": [", "m": ["new", "old"]}"#,
            ),
        ] {
            assert_eq!(merged(old).unwrap(), new, "{old}");
        }
    }

    #[test]
    fn what_cannot_be_added_to_is_refused() {
        for (text, why) in [
            ("{\"a\": 1,}", "line 1"),
            ("// comment\n{}", "not valid JSON"),
            ("[]", "object"),
            (r#"{"m": "old"}"#, "list of strings"),
            (r#"{"m": [1]}"#, "list of strings"),
            // The key as another spelling: the place is not found, and nothing is guessed.
            (r#"{"\u006d": ["old"]}"#, "certainty"),
        ] {
            let refusal = merged(text).unwrap_err();
            assert!(refusal.why.contains(why), "{text}: {refusal:?}");
        }
    }
}

//! Errors on the wire (distribution-spec, "Error Codes"): the codes, the body that Layby sends, and the bodies in all
//! shapes that registries and what stands before them send.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// What went wrong, in the words of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The repository has no such blob.
    BlobUnknown,
    /// A digest outside the grammar, or content that does not match it.
    DigestInvalid,
    /// A manifest names a blob that the repository does not have.
    ManifestBlobUnknown,
    /// What was sent is no manifest.
    ManifestInvalid,
    /// The repository has no such manifest or tag.
    ManifestUnknown,
    /// A repository name outside the grammar.
    NameInvalid,
    /// No such repository, or no upstream for it.
    NameUnknown,
    /// `n` is no number, or too large.
    PaginationNumberInvalid,
    /// No requested range lies within the content, or too many were requested.
    RangeInvalid,
    /// A tag outside the grammar.
    TagInvalid,
    /// Who asks must say who they are.
    Unauthorized,
    /// Who asks may not have it.
    Denied,
    /// The operation is not offered.
    Unsupported,
    /// Too much was asked in too short a time.
    TooManyRequests,
    /// It cannot be had at the moment.
    Unavailable,
    /// Anything else.
    Unknown,
}

impl ErrorCode {
    /// The code as it is written in bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of an error answer, ours or an upstream's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorBody {
    /// What went wrong; the first matters most. Empty when an upstream's body said nothing.
    pub errors: Vec<ErrorEntry>,
}

/// One error of an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorEntry {
    /// One of [`ErrorCode`] or any other word; `UNKNOWN` when an upstream gave none.
    pub code: String,
    /// For people: one line, at most [`ErrorBody::MAX_MESSAGE`] characters when it came from an upstream.
    pub message: String,
    /// For programs; any value.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl ErrorBody {
    /// Longest message, in characters, that is taken from an upstream.
    pub const MAX_MESSAGE: usize = 500;

    /// Most errors that are taken from an upstream's body.
    const MAX_ERRORS: usize = 16;

    /// A body of ours. The request id is in its detail, so that who sees it can find the log line.
    pub fn new(code: ErrorCode, message: impl Into<String>, request_id: &str) -> Self {
        let entry = ErrorEntry {
            code: code.as_str().to_owned(),
            message: message.into(),
            detail: Value::Object(Map::from_iter([(
                "request_id".to_owned(),
                Value::from(request_id),
            )])),
        };
        Self {
            errors: vec![entry],
        }
    }

    /// Adds a field to the detail of a body of ours.
    #[must_use]
    pub fn with_detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        for entry in &mut self.errors {
            if let Value::Object(fields) = &mut entry.detail {
                fields.insert(key.to_owned(), value.into());
                break;
            }
        }
        self
    }

    /// The body as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and JSON values always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads whatever an upstream sent with an error status: the protocol's JSON, other JSON (`details`, `message`,
    /// `error` with a text or an object, `error_description`), plain text, or nothing that can be used.
    ///
    /// The caller bounds `body`. Messages are made fit for a log line and an answer: one line, bounded, no control characters.
    pub fn parse(body: &[u8]) -> Self {
        let errors = match serde_json::from_slice::<Value>(body) {
            Ok(value) => entries(&value),
            Err(_) => ErrorEntry::of_text(&String::from_utf8_lossy(body))
                .into_iter()
                .collect(),
        };
        Self { errors }
    }

    /// Whether one of the errors has this code, in capitals or not.
    pub fn has(&self, code: ErrorCode) -> bool {
        self.errors
            .iter()
            .any(|entry| entry.code.eq_ignore_ascii_case(code.as_str()))
    }

    /// The first message that says something.
    pub fn message(&self) -> Option<&str> {
        self.errors
            .iter()
            .map(|entry| entry.message.as_str())
            .find(|message| !message.is_empty())
    }
}

impl fmt::Display for ErrorBody {
    /// The first error as `CODE: message`, or as much of it as there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.errors.first() else {
            return f.write_str("no message");
        };
        match (self.message(), first.code.as_str()) {
            (Some(message), "UNKNOWN") => f.write_str(message),
            (Some(message), code) if message == code => f.write_str(code),
            (Some(message), code) => write!(f, "{code}: {message}"),
            (None, code) => f.write_str(code),
        }
    }
}

impl ErrorEntry {
    fn of_text(text: &str) -> Option<Self> {
        let is_page = text.trim_start().starts_with('<');
        let message = if is_page {
            "a web page instead of a registry's answer".to_owned()
        } else {
            one_line(text)
        };
        (!message.is_empty()).then(|| Self {
            code: ErrorCode::Unknown.as_str().to_owned(),
            message,
            detail: Value::Null,
        })
    }

    fn of_value(value: &Value) -> Option<Self> {
        let Value::Object(fields) = value else {
            return Self::of_text(value.as_str()?);
        };
        let message = [
            "message",
            "error_description",
            "details",
            "msg",
            "title",
            "detail",
            "error",
        ]
        .iter()
        .find_map(|key| fields.get(*key)?.as_str())
        .map(one_line)
        .unwrap_or_default();
        let code = ["code", "error", "__type"]
            .iter()
            .find_map(|key| fields.get(*key)?.as_str())
            .filter(|code| is_code(code));
        if message.is_empty() && code.is_none() {
            return None;
        }
        Some(Self {
            code: code.unwrap_or(ErrorCode::Unknown.as_str()).to_owned(),
            message,
            detail: fields.get("detail").cloned().unwrap_or_default(),
        })
    }
}

/// The errors in a JSON body of any shape.
fn entries(value: &Value) -> Vec<ErrorEntry> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        Value::Object(fields) => match (fields.get("errors"), fields.get("error")) {
            (Some(Value::Array(list)), _) if !list.is_empty() => list.as_slice(),
            (_, Some(inner @ Value::Object(_))) => std::slice::from_ref(inner),
            _ => std::slice::from_ref(value),
        },
        _ => std::slice::from_ref(value),
    };
    list.iter()
        .filter_map(ErrorEntry::of_value)
        .take(ErrorBody::MAX_ERRORS)
        .collect()
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'#'))
}

/// A text as one line without control characters, cut to [`ErrorBody::MAX_MESSAGE`].
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = String::new();
    let mut room = ErrorBody::MAX_MESSAGE;
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
            room = room.saturating_sub(1);
        }
        line.extend(word.chars().take(room));
        room = room.saturating_sub(word.chars().count());
        if room == 0 {
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> ErrorBody {
        ErrorBody::parse(text.as_bytes())
    }

    #[test]
    fn a_body_of_ours_carries_code_message_and_request_id() {
        let body = ErrorBody::new(ErrorCode::ManifestUnknown, "manifest unknown", "r-1")
            .with_detail("tag", "x")
            .to_json();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"errors": [{
                "code": "MANIFEST_UNKNOWN",
                "message": "manifest unknown",
                "detail": {"request_id": "r-1", "tag": "x"},
            }]})
        );
    }

    #[test]
    fn what_we_send_is_what_is_read() {
        let sent = ErrorBody::new(ErrorCode::Denied, "no", "r-2");
        assert_eq!(ErrorBody::parse(&sent.to_json()), sent);
        assert!(sent.has(ErrorCode::Denied) && !sent.has(ErrorCode::Unknown));
    }

    #[test]
    fn the_protocols_own_shape_is_read_with_any_detail() {
        for detail in [
            "null",
            "\"sha256:00\"",
            "{\"Tag\":\"x\"}",
            "[{\"Type\":\"repository\"}]",
        ] {
            let body = parse(&format!(
                r#"{{"errors":[{{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{detail}}},{{"code":"B"}}]}}"#
            ));
            assert!(body.has(ErrorCode::ManifestUnknown), "{detail}");
            assert_eq!(body.to_string(), "MANIFEST_UNKNOWN: manifest unknown");
            assert_eq!(body.errors.len(), 2);
        }
    }

    #[test]
    fn other_shapes_give_a_message_too() {
        for (text, shown) in [
            (
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password",
            ),
            (r#"{"message":"Not Found"}"#, "Not Found"),
            (r#"{"errors":[{"status":404,"message":"gone"}]}"#, "gone"),
            (r#"{"errors":["quota spent"]}"#, "quota spent"),
            (r#"{"errors":[],"message":"quota spent"}"#, "quota spent"),
            (
                r#"{"error":"invalid_grant","error_description":"bad token"}"#,
                "invalid_grant: bad token",
            ),
            (
                r#"{"error":{"code":"DENIED","message":"no"}}"#,
                "DENIED: no",
            ),
            (r#"{"error":"just a text"}"#, "just a text"),
            (r#"{"error":"unauthorized"}"#, "unauthorized"),
            (r#""a string""#, "a string"),
            (r#"[{"code":"DENIED"}]"#, "DENIED"),
            ("too many\r\n\trequests\u{1b}[0m", "too many requests [0m"),
            (
                "<html><body>Sign in</body></html>",
                "a web page instead of a registry's answer",
            ),
            (
                "{\"errors\":[{\"code\":\"DEN",
                "{\"errors\":[{\"code\":\"DEN",
            ),
        ] {
            assert_eq!(parse(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn bodies_that_say_nothing_are_empty() {
        for text in [
            "",
            " \n",
            "{}",
            "[]",
            "null",
            "7",
            r#"{"errors":null}"#,
            r#"{"errors":[{}]}"#,
        ] {
            assert_eq!(parse(text).errors, [], "{text}");
            assert_eq!(parse(text).to_string(), "no message");
        }
    }

    #[test]
    fn messages_and_their_number_are_bounded() {
        let text = json!({"errors": vec![json!({"message": "ä ".repeat(9000)}); 99]}).to_string();
        let body = parse(&text);
        assert_eq!(body.errors.len(), ErrorBody::MAX_ERRORS);
        assert!(body.message().unwrap().chars().count() <= ErrorBody::MAX_MESSAGE);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(&deep).to_string().len() <= ErrorBody::MAX_MESSAGE);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..256)) {
            let shown = ErrorBody::parse(&body).to_string();
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}

//! What an upstream says of a refusal, for logs and messages: never what we sent it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde_json::Value;
use url::Url;

use crate::oci::ErrorBody;

/// What `body` says; nothing, if it repeats the login in the `Authorization` that was `sent`, in whatever field.
pub(super) fn said(body: &[u8], sent: Option<&HeaderValue>) -> ErrorBody {
    said_without(body, &sent.map(secrets).unwrap_or_default())
}

/// What `body` says; nothing, if it repeats one of `secrets`.
pub(super) fn said_without(body: &[u8], secrets: &[String]) -> ErrorBody {
    let repeats = |text: &str| secrets.iter().any(|secret| text.contains(secret.as_str()));
    let is_repeated = repeats(&String::from_utf8_lossy(body))
        || serde_json::from_slice(body).is_ok_and(|value| any_text(&value, &repeats));
    if is_repeated {
        return ErrorBody { errors: Vec::new() };
    }
    ErrorBody::parse(body)
}

/// What must not be seen of a request to `url`, where a redirect led: what its query holds, which may be a signature that
/// opens it to everybody, and the login in the `Authorization` that was `sent`.
pub(super) fn secrets_of(url: &Url, sent: Option<&HeaderValue>) -> Vec<String> {
    let raw = url.query().unwrap_or_default().split(['&', '=']);
    let plain = url.query_pairs().map(|(_, value)| value.into_owned());
    raw.map(str::to_owned)
        .chain(plain)
        .filter(|value| value.len() >= SHORTEST)
        .chain(sent.map(secrets).unwrap_or_default())
        .collect()
}

/// Shorter values of a query are numbers and flags, and occur in honest words.
const SHORTEST: usize = 12;

/// What of the header must not be seen: all after the scheme, and for `Basic` the password in it.
fn secrets(sent: &HeaderValue) -> Vec<String> {
    let text = String::from_utf8_lossy(sent.as_bytes());
    let (scheme, secret) = text.split_once(' ').unwrap_or(("", &text));
    let secret = secret.trim();
    let password = scheme
        .eq_ignore_ascii_case("basic")
        .then(|| STANDARD.decode(secret).ok())
        .flatten()
        .and_then(|pair| String::from_utf8(pair).ok())
        .and_then(|pair| Some(pair.split_once(':')?.1.to_owned()));
    std::iter::once(secret.to_owned())
        .chain(password)
        .filter(|secret| !secret.is_empty())
        .collect()
}

/// Whether one of the texts in `value` is as wanted. As deep as the parser lets it be.
fn any_text(value: &Value, is_wanted: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is_wanted(text),
        Value::Array(values) => values.iter().any(|value| any_text(value, is_wanted)),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| is_wanted(key) || any_text(value, is_wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_repeats_what_was_sent_says_nothing() {
        // jane:hunter2/ as `Basic` has it, once escaped, once decoded.
        let basic = HeaderValue::from_static("Basic amFuZTpodW50ZXIyLw==");
        let bearer = HeaderValue::from_static("Bearer s3cr3t/x");
        for (body, sent) in [
            (r#"{"errors":[{"message":"bad token s3cr3t/x"}]}"#, &bearer),
            (r#"{"errors":[{"message":"bad token s3cr3t\/x"}]}"#, &bearer),
            (
                r#"{"errors":[{"code":"X","detail":["s3cr3t/x"]}]}"#,
                &bearer,
            ),
            ("you sent Bearer s3cr3t/x", &bearer),
            ("you sent amFuZTpodW50ZXIyLw==", &basic),
            (r#"{"message":"wrong password hunter2\/"}"#, &basic),
        ] {
            assert_eq!(said(body.as_bytes(), Some(sent)).errors, [], "{body}");
            assert!(!said(body.as_bytes(), None).errors.is_empty(), "{body}");
        }
    }

    #[test]
    fn other_words_are_passed_on() {
        let sent = HeaderValue::from_static("Basic amFuZTpodW50ZXIyLw==");
        let words = said(br#"{"message":"no such user jane"}"#, Some(&sent));
        assert_eq!(words.to_string(), "no such user jane");
    }

    #[test]
    fn a_body_that_repeats_the_signature_of_its_url_says_nothing() {
        let url = "https://s.example/b?X-Amz-Signature=abcdef012345%2F6789&part=1"
            .parse()
            .unwrap();
        let token = HeaderValue::from_static("Bearer guest");
        let secrets = secrets_of(&url, Some(&token));
        for body in [
            "no such key: /b?X-Amz-Signature=abcdef012345%2F6789",
            r#"{"message":"abcdef012345/6789 does not match"}"#,
            "who is guest",
        ] {
            assert_eq!(said_without(body.as_bytes(), &secrets).errors, [], "{body}");
        }
        let words = said_without(b"part 1 is missing", &secrets);
        assert_eq!(words.to_string(), "part 1 is missing");
    }
}

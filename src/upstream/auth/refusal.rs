//! What the body of a refusal says.

use http::HeaderValue;

/// Whether a `403` or `400` means a token that is no longer good, as ECR and ECR Public say it (PROTOCOL 4.2).
pub(super) fn says_expired(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start(body)).to_ascii_lowercase();
    EXPIRED.iter().any(|words| text.contains(words))
}

/// The message of an error body, fit for one line of a log; `None` when there is none, or when it repeats `sent`.
pub(super) fn said(body: &[u8], sent: Option<&HeaderValue>) -> Option<String> {
    let parsed: serde_json::Value = serde_json::from_slice(body).ok()?;
    let message = [
        "/errors/0/message",
        "/message",
        "/error_description",
        "/details",
        "/error",
    ]
    .iter()
    .find_map(|place| parsed.pointer(place)?.as_str())?;
    let secret = sent
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .map(|(_scheme, secret)| secret.trim());
    if secret.is_some_and(|secret| message.contains(secret)) {
        return None;
    }
    let line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE)
        .collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

fn start(body: &[u8]) -> &[u8] {
    body.get(..MAX_READ).unwrap_or(body)
}

const EXPIRED: &[&str] = &[
    "token has expired",
    "token is expired",
    "token expired",
    "token is invalid",
    "expired token",
    "expiredtoken",
];
const MAX_READ: usize = 8 * 1024;
const MAX_MESSAGE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wordings_of_an_expired_token_are_known() {
        for body in [
            r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#,
            "Your Authorization Token has expired. Please run 'aws ecr get-login' to fetch a new one.",
            r#"{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}"#,
        ] {
            assert!(says_expired(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn other_refusals_are_not_taken_for_an_expired_token() {
        for body in [
            "",
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            "your subscription has expired",
        ] {
            assert!(!says_expired(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        let body = format!(
            r#"{{"errors":[{{"code":"DENIED","message":"a\nb{}"}}]}}"#,
            "x".repeat(900)
        );
        let message = said(body.as_bytes(), None).unwrap();
        assert!(message.starts_with("a bx") && message.len() == MAX_MESSAGE);
        assert_eq!(said(b"<html>", None), None);
        assert_eq!(said(br#"{"errors":[]}"#, None), None);
    }

    #[test]
    fn a_message_that_repeats_what_was_sent_is_not_shown() {
        let sent = HeaderValue::from_static("Bearer s3cr3t");
        let body = br#"{"errors":[{"message":"bad token s3cr3t"}]}"#;
        assert_eq!(said(body, Some(&sent)), None);
        assert!(said(body, None).is_some());
    }
}

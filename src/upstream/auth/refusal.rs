//! What the body of a refusal says.

/// Whether a `403` or `400` means a token that is no longer good, as ECR and ECR Public say it (PROTOCOL 4.2).
pub(super) fn says_expired(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start(body)).to_ascii_lowercase();
    EXPIRED.iter().any(|words| text.contains(words))
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
}

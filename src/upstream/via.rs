//! `Via` (RFC 9110, section 7.6.3): how an instance recognises its own requests.

use http::HeaderValue;

/// Whether a `Via` header names the instance `id`, which must then not pass the request on.
pub fn is_own_via(via: &HeaderValue, id: &str) -> bool {
    let own = pseudonym(id);
    via.as_bytes().split(|&byte| byte == b',').any(|entry| {
        entry
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .nth(1)
            .is_some_and(|word| word.eq_ignore_ascii_case(own.as_bytes()))
    })
}

/// The client's `Via` with the instance `id` behind it. A `Via` too long to send on is replaced.
pub(super) fn appended(client: Option<&HeaderValue>, id: &str) -> Option<HeaderValue> {
    let own = format!("1.1 {}", pseudonym(id));
    let mut value = Vec::new();
    if let Some(client) = client.filter(|client| !client.is_empty() && client.len() <= MAX_LEN) {
        value.extend_from_slice(client.as_bytes());
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(own.as_bytes());
    HeaderValue::from_bytes(&value).ok()
}

/// Longest `Via` of a client that is sent on, in bytes: dozens of hops.
const MAX_LEN: usize = 2048;

fn pseudonym(id: &str) -> String {
    format!("layby-{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_knows_itself_among_other_hops() {
        let client = HeaderValue::from_static("1.0 fred, HTTP/1.1 proxy.example (Apache)");
        assert!(!is_own_via(&client, "a1"));
        let ours = appended(Some(&client), "a1").unwrap();
        assert!(ours.to_str().unwrap().starts_with("1.0 fred, "));
        let further = appended(Some(&ours), "b2").unwrap();
        assert!(is_own_via(&further, "a1") && is_own_via(&further, "b2"));
        assert!(!is_own_via(&further, "a"));
    }

    #[test]
    fn a_request_of_our_own_names_us_alone() {
        assert_eq!(appended(None, "a1").unwrap(), "1.1 layby-a1");
    }
}

//! Conditional requests (RFC 9110, section 13). The entity tag of content is its digest in quotes, always strong.

use http::header::{HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE};

use crate::oci::Digest;

/// The `ETag` of what `digest` names.
pub(super) fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether `If-None-Match` says that the client has `digest` already: quoted, bare (docker's own registry sends it so
/// in places), weak, in a list, or `*`.
pub(super) fn client_has(headers: &HeaderMap, digest: &Digest) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            tag == "*" || unquoted(opaque) == digest.as_str()
        })
}

/// Whether a `Range` of `digest` applies as far as `If-Range` is concerned: there is none, or it holds the strong tag.
/// A date never matches, since content has none; a weak tag must not (section 13.1.5).
pub(super) fn range_applies(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(IF_RANGE).is_none_or(|value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|tag| unquoted(tag.trim()) == digest.as_str())
    })
}

fn unquoted(tag: &str) -> &str {
    tag.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &http::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn every_way_to_write_our_tag_matches() {
        let digest = Digest::sha256(b"x");
        let other = Digest::sha256(b"y");
        for value in [
            format!("\"{digest}\""),
            digest.to_string(),
            format!("W/\"{digest}\""),
            format!("\"{other}\", \"{digest}\""),
            "*".to_owned(),
        ] {
            assert!(
                client_has(&headers(&IF_NONE_MATCH, &[&value]), &digest),
                "{value}"
            );
        }
        let lines = headers(&IF_NONE_MATCH, &[other.as_str(), digest.as_str()]);
        assert!(client_has(&lines, &digest));
    }

    #[test]
    fn another_tag_does_not_match() {
        let digest = Digest::sha256(b"x");
        let other = Digest::sha256(b"y");
        assert!(!client_has(&HeaderMap::new(), &digest));
        assert!(!client_has(
            &headers(&IF_NONE_MATCH, &[other.as_str()]),
            &digest
        ));
        assert!(!client_has(&headers(&IF_NONE_MATCH, &["", "\""]), &digest));
    }

    #[test]
    fn a_range_applies_under_the_strong_tag_only() {
        let digest = Digest::sha256(b"x");
        let tag = entity_tag(&digest);
        assert!(range_applies(&HeaderMap::new(), &digest));
        assert!(range_applies(&headers(&IF_RANGE, &[&tag]), &digest));
        for value in [
            format!("W/{tag}"),
            entity_tag(&Digest::sha256(b"y")),
            "Wed, 21 Oct 2015 07:28:00 GMT".to_owned(),
        ] {
            assert!(
                !range_applies(&headers(&IF_RANGE, &[&value]), &digest),
                "{value}"
            );
        }
    }
}

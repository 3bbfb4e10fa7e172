//! The `Link` header that leads to the next page of a list (RFC 8288; distribution-spec, "Listing Tags").

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::route::{encode, parameters};

/// Longest query that is taken from an upstream's link, in bytes.
const MAX_LEN: usize = 8 * 1024;

/// What must not stand in a query or between the angle brackets of a link.
const NOT_IN_A_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'#');

/// The query of the link to the next page in the value of a `Link` header, without `ns`.
///
/// Only the query counts, whether the link is relative or absolute: it is asked again where the list came from, never
/// where the link points. `None` without such a link, or with one that has no query.
pub fn next_query(header: &str) -> Option<String> {
    let mut rest = header;
    loop {
        let (_, behind) = rest.split_once('<')?;
        let (target, behind) = behind.split_once('>')?;
        let (parameters, after) = split_link(behind);
        if parameters.iter().any(|parameter| is_next(parameter)) {
            return query_of(target);
        }
        rest = after;
    }
}

/// Value of a `Link` header that leads to the next page: relative, so that it is right behind any TLS terminator.
///
/// `path` is that of the list as the client wrote it, `ns` what it chose the upstream by, if it did.
pub fn next_link(path: &str, query: &str, ns: Option<&str>) -> String {
    let mut link = format!("<{path}?{query}");
    if let Some(ns) = ns {
        let joint = if query.is_empty() { "" } else { "&" };
        // Writing to a string cannot fail.
        let _ = write!(link, "{joint}ns={}", encode(ns));
    }
    link.push_str(r#">; rel="next""#);
    link
}

/// Splits what follows a link's target into its parameters and what follows the comma behind them.
fn split_link(text: &str) -> (Vec<&str>, &str) {
    let mut parameters = Vec::new();
    let mut is_quoted = false;
    let mut is_escaped = false;
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b';' | b',' if !is_quoted => {
                parameters.extend(text.get(start..at));
                start = at + 1;
                if byte == b',' {
                    return (parameters, text.get(start..).unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    parameters.extend(text.get(start..));
    (parameters, "")
}

fn is_next(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel")
            && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

fn query_of(target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    let (_, query) = target.split_once('?')?;
    let kept: Vec<&str> = parameters(query).collect();
    let query = utf8_percent_encode(&kept.join("&"), NOT_IN_A_QUERY).to_string();
    // Measured as it is asked: escapes make it longer than it came.
    (!query.is_empty() && query.len() <= MAX_LEN).then_some(query)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relative_and_absolute_links_give_the_same_query() {
        for header in [
            r#"</v2/a/tags/list?n=2&last=b>; rel="next""#,
            r#"<https://elsewhere.example/v2/a/tags/list?n=2&last=b>; rel="next""#,
            r"<?n=2&last=b>;rel=next",
            r#"</x?n=1>; rel="prev", </y?n=2&last=b#top>; title="a, b; <c>"; REL="last Next""#,
            r#"</v2/a/tags/list?n=2&ns=docker.io&last=b>; rel="next""#,
        ] {
            assert_eq!(
                next_query(header).as_deref(),
                Some("n=2&last=b"),
                "{header}"
            );
        }
    }

    #[test]
    fn a_header_without_a_next_page_gives_none() {
        for header in [
            "",
            "garbage",
            r#"</a?n=1>; rel="prev""#,
            r#"</a?n=1>; rel="nextish""#,
            r#"</a?n=1>; title="rel=next""#,
            r#"</a?n=1>; title="; rel=next""#,
            r#"</a>; rel="next""#,
            r#"</a?ns=x>; rel="next""#,
            "</a?n=1",
            "</a?n=1>",
        ] {
            assert_eq!(next_query(header), None, "{header}");
        }
    }

    #[test]
    fn a_cursor_is_passed_on_as_it_was_written_and_cannot_break_the_header() {
        assert_eq!(
            next_query(r"</a?next_page=x%2By+z%3D=>; rel=next").as_deref(),
            Some("next_page=x%2By+z%3D=")
        );
        assert_eq!(
            next_query("</a?last=a b\"\u{7f}ä>; rel=next").as_deref(),
            Some("last=a%20b%22%7F%C3%A4")
        );
        let long = format!("</a?last={}>; rel=next", "x".repeat(MAX_LEN));
        assert_eq!(next_query(&long), None);
    }

    #[test]
    fn our_links_are_relative_and_keep_the_namespace() {
        assert_eq!(
            next_link("/v2/a/tags/list", "last=b&n=2", Some("reg.corp:5000")),
            r#"</v2/a/tags/list?last=b&n=2&ns=reg.corp%3A5000>; rel="next""#
        );
        let ours = next_link("/ghcr.io/v2/a/tags/list", "n=2", None);
        assert_eq!(ours, r#"</ghcr.io/v2/a/tags/list?n=2>; rel="next""#);
        assert_eq!(next_query(&ours).as_deref(), Some("n=2"));
    }

    proptest! {
        #[test]
        fn any_header_is_survived(header in "[<>?;,=\"\\\\a-z# é]{0,40}") {
            if let Some(query) = next_query(&header) {
                prop_assert!(!query.contains(['<', '>', ' ', '"']));
            }
        }
    }
}

//! Reads `WWW-Authenticate` (RFC 9110, 11.6.1; RFC 6750, 3; PROTOCOL 3.1) as registries really write it.
//!
//! Total and bounded: any bytes give some challenges or none. Registries send several header lines, several challenges
//! on one line, values without quotes, and schemes that nobody knows; all of these are read or stepped over.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a token from the realm.
    Bearer(Bearer),
    /// With user and password.
    Basic,
}

/// The parts of a `Bearer` challenge that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bearer {
    /// Where tokens are given out; may be relative.
    pub(super) realm: String,
    /// Whom the token is for.
    pub(super) service: Option<String>,
    /// What for, as written: scopes separated by spaces.
    pub(super) scope: Option<String>,
    /// Whether what was sent is good but does not reach far enough (`error="insufficient_scope"`).
    pub(super) wants_more: bool,
}

/// The challenge to follow: `Bearer` where it is offered, `Basic` otherwise; `None` when there is neither.
pub(super) fn strongest(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = false;
    for line in headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_LINES) {
        let bytes = line.as_bytes();
        let text = String::from_utf8_lossy(bytes.get(..MAX_LINE).unwrap_or(bytes));
        for raw in parse(&text) {
            if raw.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(bearer) = raw.into_bearer() {
                    return Some(Challenge::Bearer(bearer));
                }
            } else if raw.scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            }
        }
    }
    basic.then_some(Challenge::Basic)
}

/// A challenge of any scheme.
#[derive(Debug)]
struct Raw<'t> {
    scheme: &'t str,
    params: Vec<(&'t str, String)>,
}

impl Raw<'_> {
    /// This as a `Bearer` challenge; `None` without a realm, since then there is nobody to ask.
    fn into_bearer(self) -> Option<Bearer> {
        let mut bearer = Bearer::default();
        for (name, value) in self.params {
            if name.eq_ignore_ascii_case("realm") {
                bearer.realm = value;
            } else if name.eq_ignore_ascii_case("service") {
                bearer.service = Some(value);
            } else if name.eq_ignore_ascii_case("scope") {
                bearer.scope = Some(value);
            } else if name.eq_ignore_ascii_case("error") {
                bearer.wants_more = value.eq_ignore_ascii_case("insufficient_scope");
            }
        }
        (!bearer.realm.is_empty()).then_some(bearer)
    }
}

/// All challenges of one header line.
fn parse(line: &str) -> Vec<Raw<'_>> {
    let mut challenges: Vec<Raw<'_>> = Vec::new();
    let mut rest = Rest(line);
    while !rest.is_empty() {
        rest.skip(|c| is_blank(c) || c == ',');
        let word = rest.take(is_token);
        if word.is_empty() {
            // Garbage up to the next comma; it belongs to nobody.
            rest.skip(|c| c != ',');
            continue;
        }
        rest.skip(is_blank);
        if !rest.starts_with('=') {
            if challenges.len() == MAX_CHALLENGES {
                break;
            }
            challenges.push(Raw {
                scheme: word,
                params: Vec::new(),
            });
            continue;
        }
        rest.advance('=');
        let value = rest.value();
        if let Some(challenge) = challenges.last_mut()
            && challenge.params.len() < MAX_PARAMS
        {
            challenge.params.push((word, value));
        }
    }
    challenges
}

/// What is left of a line.
struct Rest<'t>(&'t str);

impl<'t> Rest<'t> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn starts_with(&self, c: char) -> bool {
        self.0.starts_with(c)
    }

    /// Goes past one `c`, if it is next.
    fn advance(&mut self, c: char) {
        self.0 = self.0.strip_prefix(c).unwrap_or(self.0);
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        self.take(wanted);
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// A quoted string, or whatever stands before the next blank or comma. A quote that is never closed runs to the end.
    fn value(&mut self) -> String {
        self.skip(is_blank);
        if !self.starts_with('"') {
            return self.take(|c| !is_blank(c) && c != ',').to_owned();
        }
        let mut value = String::new();
        let mut chars = self.0.chars();
        chars.next();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => value.extend(chars.next()),
                plain => value.push(plain),
            }
        }
        self.0 = chars.as_str();
        value
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

const MAX_LINES: usize = 16;
const MAX_LINE: usize = 8 * 1024;
const MAX_CHALLENGES: usize = 16;
const MAX_PARAMS: usize = 32;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
        }
        strongest(&headers)
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what is found")]
    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
            wants_more: false,
        }))
    }

    #[test]
    fn the_challenge_of_docker_hub_is_read_with_the_comma_in_its_scope() {
        assert_eq!(
            of(&[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push""#
            ]),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:samalba/my-app:pull,push")
            )
        );
    }

    #[test]
    fn values_without_quotes_are_read() {
        assert_eq!(
            of(&["Bearer realm=https://gcr.io/v2/token, service=gcr.io"]),
            bearer("https://gcr.io/v2/token", Some("gcr.io"), None)
        );
    }

    #[test]
    fn bearer_is_preferred_to_a_basic_before_it_on_the_same_line() {
        assert_eq!(
            of(&[
                r#"Basic realm="quay.io", Bearer realm="https://quay.io/v2/auth",service="quay.io""#
            ]),
            bearer("https://quay.io/v2/auth", Some("quay.io"), None)
        );
    }

    #[test]
    fn bearer_is_preferred_to_a_basic_on_a_line_before() {
        assert_eq!(
            of(&[r#"Basic realm="x""#, r#"Bearer realm="https://x/t""#]),
            bearer("https://x/t", None, None)
        );
    }

    #[test]
    fn a_bearer_without_a_realm_gives_way_to_basic() {
        assert_eq!(
            of(&[r#"Bearer service="x", Basic realm="x""#]),
            Some(Challenge::Basic)
        );
    }

    #[test]
    fn unknown_schemes_and_their_tokens_are_stepped_over() {
        assert_eq!(
            of(&[
                r#"Negotiate, NTLM TlRMTVNTUAAC==, Digest realm="a, Basic b", nonce="c", Bearer realm="https://x/t""#
            ]),
            bearer("https://x/t", None, None)
        );
        assert_eq!(of(&["Negotiate", r#"Digest realm="Bearer""#]), None);
    }

    #[test]
    fn schemes_and_names_are_read_in_any_case_and_with_blanks() {
        assert_eq!(
            of(&["bEARER  REALM = \"https://x/t\" ,\tService =\"s\", sCoPe=\"a b\""]),
            bearer("https://x/t", Some("s"), Some("a b"))
        );
    }

    #[test]
    fn escapes_within_quotes_are_undone() {
        assert_eq!(
            of(&[r#"Bearer realm="https://x/t",service="a \"b\" \\, c""#]),
            bearer("https://x/t", Some(r#"a "b" \, c"#), None)
        );
    }

    #[test]
    fn a_missing_comma_between_two_values_does_not_hide_the_second() {
        assert_eq!(
            of(&[r#"Bearer realm="https://x/t" service="s""#]),
            bearer("https://x/t", Some("s"), None)
        );
    }

    #[test]
    fn insufficient_scope_is_noticed() {
        let challenge = of(&[r#"Bearer realm="https://x/t",error="insufficient_scope""#]);
        assert!(matches!(challenge, Some(Challenge::Bearer(b)) if b.wants_more));
    }

    #[test]
    fn a_quote_that_is_never_closed_ends_with_the_line() {
        assert_eq!(
            of(&[r#"Bearer realm="https://x/t"#]),
            bearer("https://x/t", None, None)
        );
    }

    #[test]
    fn an_endless_line_is_read_up_to_a_limit() {
        let line = format!("{}Bearer realm=\"https://x/t\"", "a,".repeat(MAX_LINE));
        assert_eq!(of(&[&line]), None);
        assert!(parse(&"a ".repeat(1000)).len() <= MAX_CHALLENGES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let mut headers = HeaderMap::new();
                headers.append(WWW_AUTHENTICATE, value);
                let _ = strongest(&headers);
            }
        }

        #[test]
        fn any_mixture_of_the_grammars_pieces_is_read_to_its_end(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["Bearer ", "Basic", "realm", "=", "\"", "\\", ",", " ", "a/b", "é", "=="]),
                0..60,
            )
        ) {
            let line = pieces.concat();
            prop_assert!(parse(&line).len() <= MAX_CHALLENGES);
        }

        #[test]
        fn whatever_is_quoted_comes_back(realm in "[ -~]{1,60}", scope in "[ -~]{0,60}") {
            let quote = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"");
            let line = format!(r#"Basic realm="x", Bearer realm="{}", scope="{}""#, quote(&realm), quote(&scope));
            prop_assert_eq!(of(&[&line]), bearer(&realm, None, Some(&scope)));
        }
    }
}

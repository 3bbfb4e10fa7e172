//! Who may administrate: whoever knows the token in the data directory.

use http::header::{AUTHORIZATION, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

/// The token, as it is compared.
#[derive(Debug)]
pub(super) struct Token(SecretString);

impl Token {
    pub(super) fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    /// Whether the request carries it as a bearer token (RFC 6750, section 2.1), exactly once.
    pub(super) fn permits(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Some((scheme, given)) = value.as_bytes().split_at_checked(SCHEME.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(SCHEME) && self.is(given.trim_ascii())
    }

    /// Takes as long for any wrong token of a length: nothing of the right one can be learnt from the time.
    fn is(&self, given: &[u8]) -> bool {
        let right = Sha256::digest(self.0.expose_secret().as_bytes());
        let given = Sha256::digest(given);
        let pairs = right.iter().zip(given.iter());
        let difference = pairs.fold(0, |difference, (a, b)| difference | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        Token::new("0123456789abcdef".into()).permits(&headers)
    }

    #[test]
    fn the_token_alone_opens_the_door() {
        assert!(permits(&["Bearer 0123456789abcdef"]));
        assert!(permits(&["bearer  0123456789abcdef"]));
        for wrong in [
            &[][..],
            &["Bearer 0123456789abcdeg"],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer "],
            &["Bearer"],
            &["Basic 0123456789abcdef"],
            &["0123456789abcdef"],
            &["Bearer x", "Bearer 0123456789abcdef"],
        ] {
            assert!(!permits(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_token_shows_in_no_debug_output() {
        let token = Token::new("0123456789abcdef".into());
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
    }
}

//! What one logs in with.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

/// A user with a password, or an identity token. Shows neither.
pub(in crate::upstream::auth) struct Login {
    kind: Kind,
    fingerprint: Fingerprint,
}

enum Kind {
    Password {
        username: String,
        password: SecretString,
    },
    Identity(SecretString),
}

/// Tells logins apart without holding them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::upstream) struct Fingerprint([u8; 32]);

impl Login {
    /// A user and a password. The user `<token>` means that the password is an identity token, as docker writes it.
    pub(in crate::upstream::auth) fn password(username: &str, password: SecretString) -> Self {
        if username == "<token>" {
            return Self::identity(password);
        }
        let fingerprint =
            Fingerprint::of(&[username.as_bytes(), password.expose_secret().as_bytes()]);
        Self {
            kind: Kind::Password {
                username: username.to_owned(),
                password,
            },
            fingerprint,
        }
    }

    /// An identity token: a refresh token that the realm gives access tokens for.
    pub(super) fn identity(token: SecretString) -> Self {
        let fingerprint = Fingerprint::of(&[token.expose_secret().as_bytes()]);
        Self {
            kind: Kind::Identity(token),
            fingerprint,
        }
    }

    pub(in crate::upstream::auth) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The identity token, if this is one.
    pub(in crate::upstream::auth) fn identity_token(&self) -> Option<&SecretString> {
        match &self.kind {
            Kind::Identity(token) => Some(token),
            Kind::Password { .. } => None,
        }
    }

    /// The `Basic` header (RFC 7617), marked sensitive; `None` for an identity token, which has no such form.
    pub(in crate::upstream::auth) fn basic(&self) -> Option<HeaderValue> {
        let Kind::Password { username, password } = &self.kind else {
            return None;
        };
        let pair = SecretString::from(format!("{username}:{}", password.expose_secret()));
        let text = SecretString::from(format!("Basic {}", STANDARD.encode(pair.expose_secret())));
        let mut header = HeaderValue::from_str(text.expose_secret()).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl Fingerprint {
    /// Of the login that `header` shows.
    pub(in crate::upstream::auth) fn of_header(header: &HeaderValue) -> Self {
        Self::of(&[header.as_bytes()])
    }

    /// Of some texts; other texts or other borders between them have another one.
    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Password { .. } => "Login(password)",
            Kind::Identity(_) => "Login(identity token)",
        })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_header_is_as_rfc_7617_has_it_and_marked_sensitive() {
        let header = Login::password("Aladdin", "open sesame".into())
            .basic()
            .unwrap();
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(header.is_sensitive());
    }

    #[test]
    fn the_user_of_an_identity_token_makes_one() {
        let login = Login::password("<token>", "abc".into());
        assert!(login.identity_token().is_some() && login.basic().is_none());
    }

    #[test]
    fn nothing_of_a_login_is_shown() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Login::password("jane", "hunter2".into()),
            Login::identity("hunter2".into()),
            Login::password("jane", "hunter2".into()).basic(),
        );
        assert!(
            !shown.contains("hunter2") && !shown.contains("jane"),
            "{shown}"
        );
        assert!(!shown.contains(&STANDARD.encode("jane:hunter2")), "{shown}");
    }

    #[test]
    fn logins_that_differ_have_different_fingerprints() {
        let of = |user: &str, password: &str| *Login::password(user, password.into()).fingerprint();
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }
}

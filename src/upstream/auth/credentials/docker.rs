//! A docker `config.json`: which of its entries is ours, and what it holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;
use url::Url;

use super::helper::Helper;
use super::login::Login;
use crate::upstream::auth::realm::host_port;

/// What a docker configuration says of one registry.
pub(super) enum Choice {
    /// Nothing.
    Nothing,
    /// The login is in the file.
    Login(Arc<Login>),
    /// A helper knows; where it does not, what the file has.
    Helper {
        helper: Helper,
        otherwise: Option<Arc<Login>>,
    },
}

/// A registry as docker's configuration and helpers call it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Host, and port unless it is the scheme's own.
    host: String,
    https: bool,
}

/// Docker's file, as far as it matters. Holds secrets, hence no `Debug`.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Auth>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default, rename = "auth")]
    pair: Option<SecretString>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<SecretString>,
    #[serde(default, rename = "identitytoken")]
    identity: Option<SecretString>,
}

/// Most bytes of a docker configuration.
pub(super) const MAX_LEN: u64 = 1024 * 1024;

/// Picks what the configuration `bytes` has for `server`: its own helper, else the general one, else the file itself,
/// as docker does.
pub(super) fn choose(
    bytes: &[u8],
    server: &Server,
    helpers: Option<&Path>,
) -> Result<Choice, String> {
    // Without serde's own words, which may quote the file.
    let file: File = serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "it is not a docker config.json (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    let in_file = match &file.auths {
        Some(auths) => server.login_in(auths)?,
        None => None,
    };
    let own = file.helpers.iter().flatten();
    let own = own
        .filter(|(key, name)| server.is(key) && !name.is_empty())
        .map(|(_, name)| name)
        .next();
    let general = file.store.as_ref().filter(|name| !name.is_empty());
    match (own.or(general), in_file) {
        (Some(name), otherwise) => Ok(Choice::Helper {
            helper: Helper::new(name, server.key(), helpers)?,
            otherwise,
        }),
        (None, Some(login)) => Ok(Choice::Login(login)),
        (None, None) => Ok(Choice::Nothing),
    }
}

impl Server {
    /// The registry at `url`.
    pub(super) fn of(url: &Url) -> Self {
        Self {
            host: host_port(url),
            https: url.scheme() == "https",
        }
    }

    /// What a helper is asked for.
    pub(super) fn key(&self) -> &str {
        if self.is_docker_hub() {
            DOCKER_HUB_KEY
        } else {
            &self.host
        }
    }

    /// Whether `key` of a docker configuration means this registry: with or without scheme, with or without the
    /// `/v1/` of old, and for Docker Hub by any of its names. A key with any other path means less than a registry.
    pub(super) fn is(&self, key: &str) -> bool {
        let key = key.to_ascii_lowercase();
        let key = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(&key);
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        if !matches!(path, "" | "v1" | "v1/" | "v2" | "v2/") {
            return false;
        }
        let own_port = if self.https { ":443" } else { ":80" };
        let host = host.strip_suffix(own_port).unwrap_or(host);
        host == self.host || (self.is_docker_hub() && DOCKER_HUB.contains(&host))
    }

    fn is_docker_hub(&self) -> bool {
        DOCKER_HUB.contains(&self.host.as_str())
    }

    /// The login for this registry among `auths`; the exact key wins over other spellings.
    fn login_in(&self, auths: &BTreeMap<String, Auth>) -> Result<Option<Arc<Login>>, String> {
        let exact = auths.get_key_value(self.key()).into_iter();
        let others = auths.iter().filter(|(key, _)| self.is(key));
        for (_, auth) in exact.chain(others) {
            if let Some(login) = auth.login()? {
                return Ok(Some(Arc::new(login)));
            }
        }
        Ok(None)
    }
}

impl Auth {
    /// The login of this entry; `None` for the empty ones that docker leaves beside a helper.
    fn login(&self) -> Result<Option<Login>, String> {
        let is_there = |secret: &&SecretString| !secret.expose_secret().is_empty();
        if let Some(token) = self.identity.as_ref().filter(is_there) {
            return Ok(Some(Login::identity(token.clone())));
        }
        if let Some(pair) = self.pair.as_ref().filter(is_there) {
            return decode(pair).map(Some);
        }
        match (&self.username, self.password.as_ref().filter(is_there)) {
            (Some(username), Some(password)) if !username.is_empty() => {
                Ok(Some(Login::password(username, password.clone())))
            }
            _ => Ok(None),
        }
    }
}

/// `user:password` in base64. Old dockers padded the password with zeros.
fn decode(auth: &SecretString) -> Result<Login, String> {
    const WRONG: &str = "the auth of its entry for this registry is not base64 of user:password";
    let bytes = STANDARD
        .decode(auth.expose_secret().trim())
        .map_err(|_| WRONG.to_owned())?;
    let bytes = SecretSlice::from(bytes);
    let pair = std::str::from_utf8(bytes.expose_secret()).map_err(|_| WRONG.to_owned())?;
    let (username, password) = pair.split_once(':').ok_or_else(|| WRONG.to_owned())?;
    let password = password.trim_end_matches('\0');
    if username.is_empty() {
        return Err(WRONG.to_owned());
    }
    Ok(Login::password(username, SecretString::from(password)))
}

const DOCKER_HUB: &[&str] = &["docker.io", "index.docker.io", "registry-1.docker.io"];
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Server {
        Server::of(&Url::parse(url).unwrap())
    }

    fn basic_for(url: &str, config: &str) -> Option<String> {
        match choose(config.as_bytes(), &server(url), None) {
            Ok(Choice::Login(login)) => Some(login.basic()?.to_str().ok()?.to_owned()),
            Ok(Choice::Nothing) => None,
            Ok(Choice::Helper { .. }) => panic!("a helper"),
            Err(why) => panic!("{why}"),
        }
    }

    fn of(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn keys_match_as_docker_matches_them() {
        for (url, key, ours) in [
            ("https://ghcr.io", "ghcr.io", true),
            ("https://ghcr.io", "https://GHCR.io/", true),
            ("https://ghcr.io", "https://ghcr.io/v1/", true),
            ("https://ghcr.io", "http://ghcr.io/v2", true),
            ("https://ghcr.io", "ghcr.io:443", true),
            ("https://ghcr.io", "ghcr.io:80", false),
            ("https://ghcr.io", "ghcr.io/org", false),
            ("https://ghcr.io", "evil-ghcr.io", false),
            ("https://ghcr.io", "ghcr.io.evil", false),
            ("https://ghcr.io", "https://index.docker.io/v1/", false),
            ("http://r.example:5000/project", "r.example:5000", true),
            ("http://r.example:5000/project", "r.example", false),
            ("https://registry-1.docker.io", DOCKER_HUB_KEY, true),
            ("https://registry-1.docker.io", "docker.io", true),
            ("https://registry-1.docker.io", "index.docker.io", true),
        ] {
            assert_eq!(server(url).is(key), ours, "{key} for {url}");
        }
    }

    #[test]
    fn helpers_know_docker_hub_by_its_old_name_and_others_by_host() {
        assert_eq!(server("https://registry-1.docker.io").key(), DOCKER_HUB_KEY);
        assert_eq!(server("https://r.example:5000/x").key(), "r.example:5000");
    }

    #[test]
    fn base64_and_plain_entries_are_read() {
        let auth = STANDARD.encode("jane:a:b\0\0");
        let config = format!(r#"{{"auths":{{"r.example":{{"auth":"{auth}"}}}}}}"#);
        assert_eq!(
            basic_for("https://r.example", &config),
            Some(of("jane:a:b"))
        );
        let config = r#"{"auths":{"r.example":{"username":"jane","password":"pw"}}}"#;
        assert_eq!(basic_for("https://r.example", config), Some(of("jane:pw")));
        assert_eq!(basic_for("https://other.example", config), None);
    }

    #[test]
    fn the_exact_key_wins_and_empty_entries_are_passed_over() {
        let config = r#"{"auths":{
            "http://r.example":{"username":"old","password":"1"},
            "r.example":{"username":"new","password":"2"}}}"#;
        assert_eq!(basic_for("https://r.example", config), Some(of("new:2")));
        let config = r#"{"auths":{
            "r.example":{},
            "https://r.example/v1/":{"username":"old","password":"1"}}}"#;
        assert_eq!(basic_for("https://r.example", config), Some(of("old:1")));
    }

    #[test]
    fn an_identity_token_is_preferred_to_the_password_beside_it() {
        let config = r#"{"auths":{"r.example":{"auth":"PHRva2VuPjo=","identitytoken":"abc"}}}"#;
        let Ok(Choice::Login(login)) =
            choose(config.as_bytes(), &server("https://r.example"), None)
        else {
            panic!("no login");
        };
        assert_eq!(
            login.identity_token().map(|t| t.expose_secret().to_owned()),
            Some("abc".to_owned())
        );
    }

    #[test]
    fn a_registrys_own_helper_wins_over_the_general_one() {
        let config = r#"{"credsStore":"general","credHelpers":{"https://r.example":"own"},
            "auths":{"r.example":{},"other.example":{"username":"a","password":"b"}}}"#;
        let helper = |url: &str| match choose(config.as_bytes(), &server(url), None) {
            Ok(Choice::Helper { helper, otherwise }) => {
                (helper.name().to_owned(), otherwise.is_some())
            }
            _ => panic!("no helper"),
        };
        assert_eq!(helper("https://r.example"), ("own".to_owned(), false));
        assert_eq!(
            helper("https://other.example"),
            ("general".to_owned(), true)
        );
    }

    #[test]
    fn a_broken_file_is_refused_without_quoting_it() {
        for config in [
            r#"{"auths":{"r.example":{"auth":"hunter2!"}}}"#,
            r#"{"auths":{"r.example":{"password":hunter2}}}"#,
            r#"{"auths":"hunter2"}"#,
            r#"{"credHelpers":{"r.example":"../../bin/hunter2"}}"#,
        ] {
            let Err(why) = choose(config.as_bytes(), &server("https://r.example"), None) else {
                panic!("{config} was taken");
            };
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn nulls_and_unknown_keys_do_no_harm() {
        let config = r#"{"auths":null,"credHelpers":null,"credsStore":"","HttpHeaders":{"a":"b"}}"#;
        assert_eq!(basic_for("https://r.example", config), None);
    }
}

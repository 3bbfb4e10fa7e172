//! User names, passwords and identity tokens of one upstream URL, from wherever the operator keeps them.
//!
//! Owns reading and re-reading them: inline, a password file, a docker `config.json`, a credential helper. Never decides
//! who may see them, never logs them, and puts them in no error. Imports `config` values and `upstream::Error`.

mod docker;
mod file;
mod helper;
mod login;

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::time::Instant;
use url::Url;

pub(in crate::upstream) use login::Fingerprint;
pub(super) use login::Login;

use self::docker::{Choice, Server};
use self::file::Watched;
use self::helper::Helper;
use crate::config::{CredentialSource, UpstreamName};
use crate::upstream::Error;

/// The credentials of one upstream URL, kept current.
pub(super) struct Credentials {
    upstream: UpstreamName,
    source: Source,
}

enum Source {
    /// None are configured.
    None,
    /// In the configuration.
    Fixed(Arc<Login>),
    /// A password in a file.
    PasswordFile(Watched<Arc<Login>>),
    /// What a docker configuration says of this URL.
    Docker(Watched<Choice>),
    /// A helper that is asked.
    Helper(Helper),
    /// A source that cannot be used, and why.
    Unusable(String),
}

impl Credentials {
    /// The credentials that `source` has for `url`; helpers are looked for in `PATH`.
    pub(super) fn new(
        upstream: &UpstreamName,
        url: &Url,
        source: Option<&CredentialSource>,
    ) -> Self {
        Self::with_helpers_in(upstream, url, source, None)
    }

    /// The same with helpers in one directory.
    fn with_helpers_in(
        upstream: &UpstreamName,
        url: &Url,
        source: Option<&CredentialSource>,
        helpers: Option<PathBuf>,
    ) -> Self {
        let server = Server::of(url);
        let source = match source {
            None => Source::None,
            Some(CredentialSource::Password { username, password }) => {
                Source::Fixed(Arc::new(Login::password(username, password.clone())))
            }
            Some(CredentialSource::PasswordFile { username, path }) => {
                Source::PasswordFile(password_file(username.clone(), path.clone()))
            }
            Some(CredentialSource::DockerConfig(path)) => Source::Docker(Watched::new(
                "docker_config",
                path.clone(),
                docker::MAX_LEN,
                move |bytes| docker::choose(bytes, &server, helpers.as_deref()),
            )),
            Some(CredentialSource::CredentialHelper(name)) => {
                match Helper::new(name, server.key(), helpers.as_deref()) {
                    Ok(helper) => Source::Helper(helper),
                    Err(why) => Source::Unusable(why),
                }
            }
        };
        Self {
            upstream: upstream.clone(),
            source,
        }
    }

    /// What to log in with now; `None`: nothing is configured for this URL, so ask anonymously.
    ///
    /// A source that cannot be read is [`Error::Denied`]: the operator has to mend it.
    pub(super) async fn login(&self, deadline: Instant) -> Result<Option<Arc<Login>>, Error> {
        match tokio::time::timeout_at(deadline, self.read(deadline)).await {
            Ok(Ok(login)) => Ok(login),
            Ok(Err(why)) => Err(self.denied(&why)),
            Err(_) => Err(Error::unavailable(format!(
                "reading the credentials of upstream {} took too long",
                self.upstream
            ))),
        }
    }

    /// What to log in with instead of the login `refused`, read past every cache; `None`: nothing else.
    pub(super) async fn instead_of(
        &self,
        refused: &Fingerprint,
        deadline: Instant,
    ) -> Result<Option<Arc<Login>>, Error> {
        if tokio::time::timeout_at(deadline, self.forget(refused))
            .await
            .is_err()
        {
            return Ok(None);
        }
        let login = self.login(deadline).await?;
        Ok(login.filter(|login| login.fingerprint() != refused))
    }

    /// Makes the next look go past what is remembered of the login `refused`.
    async fn forget(&self, refused: &Fingerprint) {
        match &self.source {
            Source::None | Source::Fixed(_) | Source::Unusable(_) => {}
            Source::PasswordFile(file) => file.look_again(),
            Source::Docker(file) => {
                file.look_again();
                if let Ok(choice) = file.get().await
                    && let Choice::Helper { helper, .. } = choice.as_ref()
                {
                    helper.forget(refused).await;
                }
            }
            Source::Helper(helper) => helper.forget(refused).await,
        }
    }

    async fn read(&self, deadline: Instant) -> Result<Option<Arc<Login>>, String> {
        match &self.source {
            Source::None => Ok(None),
            Source::Fixed(login) => Ok(Some(Arc::clone(login))),
            Source::PasswordFile(file) => Ok(Some(Arc::clone(file.get().await?.as_ref()))),
            Source::Docker(file) => match file.get().await?.as_ref() {
                Choice::Nothing => Ok(None),
                Choice::Login(login) => Ok(Some(Arc::clone(login))),
                Choice::Helper { helper, otherwise } => {
                    Ok(helper.login(deadline).await?.or_else(|| otherwise.clone()))
                }
            },
            Source::Helper(helper) => helper.login(deadline).await,
            Source::Unusable(why) => Err(why.clone()),
        }
    }

    fn denied(&self, why: &str) -> Error {
        Error::Denied {
            message: format!("no credentials for upstream {}: {why}", self.upstream),
            ours: true,
        }
    }
}

/// The password is all of the file but the newline at its end.
fn password_file(username: String, path: PathBuf) -> Watched<Arc<Login>> {
    Watched::new("password_file", path, MAX_PASSWORD, move |bytes| {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Arc::new(Login::password(
            &username,
            SecretString::from(text),
        )))
    })
}

const MAX_PASSWORD: u64 = 64 * 1024;

#[cfg(test)]
mod tests;

//! The keys that say where user and password come from: in an upstream's section for its first URL, in
//! `[upstreams."name".credentials."host"]` for the others.

use url::Url;

use super::{CredentialSource, HostPort, UpstreamUrl};
use crate::config::document::Section;
use crate::config::faults::Wrong;
use crate::config::values::{host_port, path};

/// The URLs of an upstream, each with the credentials that are for its host.
pub(super) fn assign(section: &Section<'_>, urls: Vec<Url>) -> Vec<UpstreamUrl> {
    let first = urls.first().cloned();
    let own = read(section);
    let mut others = read_others(section);
    let assigned = urls
        .into_iter()
        .map(|url| {
            let is_first = first
                .as_ref()
                .is_some_and(|first| first.origin() == url.origin());
            let mut credentials = own.clone().filter(|_| is_first);
            for other in others.iter_mut().filter(|other| other.is_for(&url)) {
                other.used = true;
                if credentials.is_some() {
                    other.section.fault_here(Wrong::new(
                        "is for the host that the upstream's own credentials are for",
                        "keep one of the two",
                    ));
                }
                credentials = Some(other.source.clone());
            }
            UpstreamUrl { url, credentials }
        })
        .collect();
    for other in others.iter().filter(|other| !other.used) {
        other.section.fault_here(Wrong::new(
            "is for a host that none of the upstream's urls has",
            "write the host of one of them, with the port if the url has one",
        ));
    }
    assigned
}

struct Other<'d> {
    section: Section<'d>,
    host: HostPort,
    source: CredentialSource,
    used: bool,
}

impl Other<'_> {
    fn is_for(&self, url: &Url) -> bool {
        let ports = [url.port(), url.port_or_known_default()];
        url.host_str() == Some(self.host.host.as_str()) && ports.contains(&self.host.port)
    }
}

fn read_others<'d>(section: &Section<'d>) -> Vec<Other<'d>> {
    let mut others = Vec::new();
    for (key, section) in section.section("credentials").sections() {
        let host = host_port(key).map_err(|wrong| section.fault_here(wrong));
        let source = read(&section);
        section.close();
        match (host, source) {
            (Ok(host), Some(source)) => others.push(Other {
                section,
                host,
                source,
                used: false,
            }),
            (Ok(_), None) => section.fault_here(Wrong::new(
                "has no usable credentials",
                "write username with password_file or password, or docker_config, or credential_helper",
            )),
            (Err(()), _) => {}
        }
    }
    others
}

/// The source that a section's keys name; every way in which they contradict each other is a fault.
fn read(section: &Section<'_>) -> Option<CredentialSource> {
    let username = section.text("username", username);
    let password = section.text("password", password);
    let password_file = section.text("password_file", path);
    let docker_config = section.text("docker_config", path);
    let credential_helper = section.text("credential_helper", helper_name);

    let given: Vec<&str> = [
        ("password", password.is_some()),
        ("password_file", password_file.is_some()),
        ("docker_config", docker_config.is_some()),
        ("credential_helper", credential_helper.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, is_given)| is_given.then_some(key))
    .collect();
    if let [_, second, ..] = given.as_slice() {
        let problem = format!("contradicts: there are {} too", given.join(" and "));
        let wrong = Wrong::new(problem, "keep one source of credentials");
        section.fault(second, wrong);
    }

    let source = if let Some(path) = docker_config {
        CredentialSource::DockerConfig(path)
    } else if let Some(name) = credential_helper {
        CredentialSource::CredentialHelper(name)
    } else {
        return with_username(section, username, password, password_file);
    };
    if username.is_some() {
        let wrong = Wrong::new(
            "is not used",
            "remove it: the user name comes with the password",
        );
        section.fault("username", wrong);
    }
    Some(source)
}

fn with_username(
    section: &Section<'_>,
    username: Option<String>,
    password: Option<secrecy::SecretString>,
    password_file: Option<std::path::PathBuf>,
) -> Option<CredentialSource> {
    let Some(username) = username else {
        let key = match (&password, &password_file) {
            (Some(_), _) => "password",
            (None, Some(_)) => "password_file",
            (None, None) => return None,
        };
        if !section.has("username") {
            section.fault(key, Wrong::new("has no username", "write username too"));
        }
        return None;
    };
    match (password, password_file) {
        (Some(password), _) => Some(CredentialSource::Password { username, password }),
        (None, Some(path)) => Some(CredentialSource::PasswordFile { username, path }),
        (None, None) => {
            if !section.has("password") && !section.has("password_file") {
                let wrong = Wrong::new("has no password", "write password_file or password too");
                section.fault("username", wrong);
            }
            None
        }
    }
}

fn username(text: &str) -> Result<String, Wrong> {
    // HTTP's Basic scheme ends the name at the first colon.
    if text.is_empty() || text.contains(':') || text.chars().any(char::is_control) {
        return Err(Wrong::new(
            "is not a user name",
            "write one without ':' and control characters",
        ));
    }
    Ok(text.to_owned())
}

fn password(text: &str) -> Result<secrecy::SecretString, Wrong> {
    if text.is_empty() {
        return Err(Wrong::new(
            "is empty",
            "write the password, or better a password_file",
        ));
    }
    Ok(text.into())
}

/// The name becomes part of a program's name, so it must not lead anywhere else.
fn helper_name(text: &str) -> Result<String, Wrong> {
    let name = text.strip_prefix("docker-credential-").unwrap_or(text);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(Wrong::new(
            format!("{text:?} is not the name of a credential helper"),
            r#"write "ecr-login" for the program docker-credential-ecr-login"#,
        ));
    }
    Ok(name.to_owned())
}

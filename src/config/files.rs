//! Whether the files that a configuration names are there.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::faults::{Faults, Wrong};
use super::{Config, CredentialSource};

impl Config {
    /// Checks that every file named is a file and can be read by this user.
    pub fn check_files(&self) -> Result<(), Faults> {
        let mut seen = HashSet::new();
        let faults = self
            .files()
            .filter(|(_, path)| seen.insert(*path))
            .filter_map(|(key, path)| {
                let problem = match open(path) {
                    Ok(()) => return None,
                    Err(error) => format!("{}: {error}", path.display()),
                };
                let wrong = Wrong::new(problem, "name a file that Layby may read");
                Some(wrong.of(key, None))
            })
            .collect();
        Faults::some(faults).map_or(Ok(()), Err)
    }

    fn files(&self) -> impl Iterator<Item = (String, &Path)> {
        let tls = self.tls.iter().flat_map(|tls| {
            [
                ("tls.cert_file".to_owned(), tls.cert_file.as_path()),
                ("tls.key_file".to_owned(), tls.key_file.as_path()),
            ]
        });
        let upstreams = self.upstreams.iter().flat_map(|upstream| {
            let section = format!("upstreams.{:?}", upstream.name.as_str());
            let mut files = Vec::new();
            if let Some(ca) = &upstream.ca_file {
                files.push((format!("{section}.ca_file"), ca.as_path()));
            }
            if let Some((cert, key)) = &upstream.client_cert {
                files.push((format!("{section}.client_cert"), cert.as_path()));
                files.push((format!("{section}.client_key"), key.as_path()));
            }
            for url in &upstream.urls {
                match &url.credentials {
                    Some(CredentialSource::PasswordFile { path, .. }) => {
                        files.push((format!("{section}.password_file"), path.as_path()));
                    }
                    Some(CredentialSource::DockerConfig(path)) => {
                        files.push((format!("{section}.docker_config"), path.as_path()));
                    }
                    Some(
                        CredentialSource::Password { .. } | CredentialSource::CredentialHelper(_),
                    )
                    | None => {}
                }
            }
            files
        });
        tls.chain(upstreams)
    }
}

fn open(path: &Path) -> io::Result<()> {
    // Looked at first: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    File::open(path).map(drop)
}

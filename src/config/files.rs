//! Whether the files that a configuration names are there, and hold what they should.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::faults::{Faults, Wrong};
use super::{Config, CredentialSource};

impl Config {
    /// Checks that every file named is a file, can be read by this user, and holds the certificates or the key that
    /// its key wants.
    pub fn check_files(&self) -> Result<(), Faults> {
        let mut seen = HashSet::new();
        let faults = self
            .files()
            .filter(|(_, path, holds)| seen.insert((*path, *holds)))
            .filter_map(|(key, path, holds)| {
                let wrong = check(path, holds).err()?;
                Some(wrong.of(key, None))
            })
            .collect();
        Faults::some(faults).map_or(Ok(()), Err)
    }

    fn files(&self) -> impl Iterator<Item = (String, &Path, Holds)> {
        let tls = self.tls.iter().flat_map(|tls| {
            let (cert, key) = (tls.cert_file.as_path(), tls.key_file.as_path());
            [
                ("tls.cert_file".to_owned(), cert, Holds::Certificates),
                ("tls.key_file".to_owned(), key, Holds::PrivateKey),
            ]
        });
        let upstreams = self.upstreams.iter().flat_map(|upstream| {
            let section = format!("upstreams.{:?}", upstream.name.as_str());
            let mut files = Vec::new();
            if let Some(ca) = &upstream.ca_file {
                files.push((
                    format!("{section}.ca_file"),
                    ca.as_path(),
                    Holds::Certificates,
                ));
            }
            if let Some((cert, key)) = &upstream.client_cert {
                let (cert, key) = (cert.as_path(), key.as_path());
                files.push((format!("{section}.client_cert"), cert, Holds::Certificates));
                files.push((format!("{section}.client_key"), key, Holds::PrivateKey));
            }
            for url in &upstream.urls {
                match &url.credentials {
                    Some(CredentialSource::PasswordFile { path, .. }) => {
                        let key = format!("{section}.password_file");
                        files.push((key, path.as_path(), Holds::Anything));
                    }
                    Some(CredentialSource::DockerConfig(path)) => {
                        let key = format!("{section}.docker_config");
                        files.push((key, path.as_path(), Holds::Anything));
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

/// What a file must hold, in PEM form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holds {
    Anything,
    Certificates,
    PrivateKey,
}

/// Largest file of certificates that is looked into; the authorities of a whole system take less than 1 MiB.
const MAX_PEM: u64 = 16 << 20;

fn check(path: &Path, holds: Holds) -> Result<(), Wrong> {
    let shown = path.display();
    let file = open(path).map_err(|error| {
        Wrong::new(
            format!("{shown}: {error}"),
            "name a file that Layby may read",
        )
    })?;
    let (found, wanted) = match holds {
        Holds::Anything => return Ok(()),
        Holds::Certificates => (read_pem(file, has_certificates), "certificates"),
        Holds::PrivateKey => (read_pem(file, has_key), "a private key without a password"),
    };
    // Without the parser's own words, which may quote a key.
    found.map_err(|problem| {
        Wrong::new(
            format!("{shown} {problem}"),
            format!("name a file that holds {wanted} in PEM form, which starts with -----BEGIN"),
        )
    })
}

fn read_pem(
    file: File,
    check: impl Fn(&[u8]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_PEM + 1).read_to_end(&mut bytes);
    match read {
        Ok(_) if bytes.len() as u64 > MAX_PEM => Err("is too large"),
        Ok(_) => check(&bytes),
        Err(_) => Err("cannot be read"),
    }
}

fn has_certificates(bytes: &[u8]) -> Result<(), &'static str> {
    let mut certificates = CertificateDer::pem_slice_iter(bytes).peekable();
    if certificates.peek().is_none() {
        return Err("holds no certificate");
    }
    if certificates.any(|certificate| certificate.is_err()) {
        return Err("holds a certificate that cannot be read");
    }
    Ok(())
}

fn has_key(bytes: &[u8]) -> Result<(), &'static str> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(_) => Ok(()),
        Err(pem::Error::NoItemsFound) => Err("holds no private key"),
        Err(_) => Err("holds a private key that cannot be read"),
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Looked at first: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::config::{Config, Overrides};

    /// The faults of an upstream whose files hold these texts; the keys that are written.
    fn faults(ca: &str, cert: &str, key: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::from("data_dir = \"/d\"\n[upstreams.\"docker.io\"]\n");
        for (name, content) in [("ca_file", ca), ("client_cert", cert), ("client_key", key)] {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            writeln!(text, "{name} = {:?}", path.to_str().unwrap()).unwrap();
        }
        let config = Config::from_toml(&text, &Overrides::default()).unwrap();
        match config.check_files() {
            Ok(()) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["layby".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    #[test]
    fn good_certificates_and_keys_are_no_fault() {
        let (cert, key) = pair();
        assert_eq!(faults(&cert, &cert, &key), [""; 0]);
        let both = format!("{cert}{key}{cert}");
        assert_eq!(faults(&both, &both, &both), [""; 0]);
    }

    #[test]
    fn files_that_hold_no_pem_are_faults_that_name_key_and_file() {
        let (cert, key) = pair();
        let broken = cert.replacen("MII", "*II", 1);
        for (faults, name, says) in [
            (faults("nonsense", &cert, &key), "ca_file", "no certificate"),
            (faults("", &cert, &key), "ca_file", "no certificate"),
            (faults(&broken, &cert, &key), "ca_file", "cannot be read"),
            (faults(&cert, &key, &key), "client_cert", "no certificate"),
            (faults(&cert, &cert, &cert), "client_key", "no private key"),
        ] {
            let [fault] = faults.as_slice() else {
                panic!("{faults:?}");
            };
            let key = format!("upstreams.\"docker.io\".{name}: ");
            assert!(fault.starts_with(&key), "{fault}");
            assert!(
                fault.contains(says) && fault.contains("-----BEGIN"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_fault_never_shows_what_a_file_holds() {
        let (cert, key) = pair();
        let broken = key.replace("\n-----END", "s3cret*\n-----END");
        let faults = faults(&cert, &cert, &broken);
        assert!(
            !faults.is_empty() && !format!("{faults:?}").contains("s3cret"),
            "{faults:?}"
        );
    }
}

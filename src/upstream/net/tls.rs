//! TLS to upstreams: whom we trust, and the certificate that we show.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::upstream::Error;

/// The machine's certificate authorities, read when first needed.
#[derive(Debug, Default)]
pub(in crate::upstream) struct SystemRoots(std::sync::OnceLock<Arc<RootCertStore>>);

impl SystemRoots {
    /// The authorities; none where the machine has none. Blocks at first use.
    fn get(&self) -> Arc<RootCertStore> {
        Arc::clone(self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a system certificate store cannot be read");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        }))
    }
}

/// TLS settings of one upstream, read again when their files change.
#[derive(Debug)]
pub(in crate::upstream) struct Tls {
    ca_file: Option<PathBuf>,
    client_cert: Option<(PathBuf, PathBuf)>,
    roots: Arc<SystemRoots>,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug, Clone)]
struct Loaded {
    stamps: Stamps,
    config: Arc<ClientConfig>,
}

/// Modification time and length of each file; `None` where it cannot be told.
type Stamps = Vec<Option<(SystemTime, u64)>>;

impl Tls {
    /// Settings that trust the machine's authorities and those of `ca_file`.
    pub(in crate::upstream) fn new(
        ca_file: Option<PathBuf>,
        client_cert: Option<(PathBuf, PathBuf)>,
        roots: Arc<SystemRoots>,
    ) -> Self {
        Self {
            ca_file,
            client_cert,
            roots,
            loaded: Mutex::new(None),
        }
    }

    /// The settings as the files are now. A file that has become unreadable leaves the last good settings in force.
    pub(super) async fn config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, Error> {
        let has_files = self.ca_file.is_some() || self.client_cert.is_some();
        if !has_files && let Some(loaded) = &*self.loaded.lock() {
            return Ok(Arc::clone(&loaded.config));
        }
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.refresh())
            .await
            .map_err(|_| Error::unavailable("layby is shutting down"))?
    }

    fn refresh(&self) -> Result<Arc<ClientConfig>, Error> {
        let stamps = self.stamps();
        let last = self.loaded.lock().clone();
        if let Some(last) = &last
            && last.stamps == stamps
        {
            return Ok(Arc::clone(&last.config));
        }
        match (self.load(), last) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *self.loaded.lock() = Some(Loaded {
                    stamps,
                    config: Arc::clone(&config),
                });
                Ok(config)
            }
            (Err(message), Some(last)) => {
                tracing::warn!(error = %message, "changed certificates are not usable, the last ones stay in use");
                let config = Arc::clone(&last.config);
                // Tried again when the files change again.
                *self.loaded.lock() = Some(Loaded { stamps, ..last });
                Ok(config)
            }
            (Err(message), None) => Err(Error::unavailable(message)),
        }
    }

    fn stamps(&self) -> Stamps {
        let pair = self.client_cert.iter().flat_map(|(cert, key)| [cert, key]);
        self.ca_file
            .iter()
            .chain(pair)
            .map(|path| stamp(path))
            .collect()
    }

    fn load(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::clone(&self.roots.get());
        if let Some(path) = &self.ca_file {
            for certificate in read_certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unusable(path, &error))?;
            }
        }
        if roots.is_empty() {
            return Err(
                "this machine has no certificate authorities: install its ca-certificates \
                package or set ca_file"
                    .to_owned(),
            );
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots);
        let mut config = match &self.client_cert {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(read_certificates(cert)?, read_key(key)?)
                .map_err(|error| unusable(cert, &error))?,
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, &error))?;
    if certificates.is_empty() {
        return Err(unusable(path, &"it holds no certificate in PEM form"));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used: {why}", path.display())
}

//! TLS for the downstream listener: certificate and key read again when they change, handshakes off the accept loop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, pki_types};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsListener;
use crate::runtime::Tasks;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of what it should.
    #[error("`{key}` {path}: {message}")]
    File {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// They cannot be used together.
    #[error(
        "the certificate in {cert} and the key in {key} cannot be used: {source}; give a pair that belongs together"
    )]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// The certificate now in use, and where it comes from.
#[derive(Debug)]
pub(super) struct Certificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: ArcSwap<CertifiedKey>,
    /// Of the files as last tried, whether they could be used or not.
    tried: Mutex<(Stamp, Stamp)>,
    provider: Arc<CryptoProvider>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

impl Certificate {
    /// Reads the files that `config` names. Blocks.
    pub(super) fn load(config: &TlsListener) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(provider());
        let stamps = (Stamp::of(&config.cert_file), Stamp::of(&config.key_file));
        let pair = read_pair(&config.cert_file, &config.key_file, &provider)?;
        Ok(Arc::new(Self {
            cert_file: config.cert_file.clone(),
            key_file: config.key_file.clone(),
            current: ArcSwap::from_pointee(pair),
            tried: Mutex::new(stamps),
            provider,
        }))
    }

    /// What accepts connections with the certificate that is current at each.
    pub(super) fn handshakes(self: &Arc<Self>) -> Result<Handshakes, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Pair {
                cert: self.cert_file.clone(),
                key: self.key_file.clone(),
                source,
            })?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN_H2.to_vec(), b"http/1.1".to_vec()];
        let mut fast = config.clone();
        fast.ignore_client_order = true;
        Ok(Handshakes {
            fast: Arc::new(fast),
            as_asked: Arc::new(config),
        })
    }

    /// Takes up the files if they have changed since they were last tried; whether it did. The old certificate stays
    /// in use where the new files cannot be. Blocks.
    pub(super) fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let stamps = (Stamp::of(&self.cert_file), Stamp::of(&self.key_file));
        if std::mem::replace(&mut *self.tried.lock(), stamps) == stamps {
            return Ok(false);
        }
        let pair = read_pair(&self.cert_file, &self.key_file, &self.provider)?;
        self.current.store(Arc::new(pair));
        Ok(true)
    }

    /// Looks for changes until the tasks stop.
    pub(super) fn watch(self: &Arc<Self>, tasks: &Tasks) {
        let certificate = Arc::clone(self);
        tasks.spawn_until_stop(async move {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                let looked = Arc::clone(&certificate);
                match tokio::task::spawn_blocking(move || looked.reload_if_changed()).await {
                    Ok(Ok(true)) => tracing::info!("took up the changed tls certificate"),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the changed tls certificate is not used; the old one stays");
                    }
                    Ok(Ok(false)) | Err(_) => {}
                }
            }
        });
    }
}

/// Accepts TLS connections.
#[derive(Debug, Clone)]
pub(super) struct Handshakes {
    /// With the cipher that costs least here.
    fast: Arc<ServerConfig>,
    /// With the cipher that the client likes best.
    as_asked: Arc<ServerConfig>,
}

impl Handshakes {
    /// Shakes hands with the client behind `stream`.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let started = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = if is_slow_with_aes(started.client_hello().cipher_suites()) {
            &self.as_asked
        } else {
            &self.fast
        };
        let mut accepted = started.into_stream(Arc::clone(config)).await?;
        accepted.get_mut().1.set_buffer_limit(Some(RECORDS_BYTES));
        Ok(accepted)
    }
}

/// Whether a client asks for ChaCha20 before AES, as those do whose processors have no instructions for AES: it is many
/// times faster for them.
fn is_slow_with_aes(offered: &[CipherSuite]) -> bool {
    let first = offered.iter().find_map(|suite| {
        let name = suite.as_str()?;
        let is_chacha = name.contains("CHACHA20");
        (is_chacha || name.contains("AES")).then_some(is_chacha)
    });
    first.unwrap_or(false)
}

/// AES with keys of 128 bits comes first: those of 256 cost a third more for each byte.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite().as_str().unwrap_or_default();
        !name.contains("AES_128_GCM")
    });
    provider
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Stamp {
    /// Of a file that is not there: nothing. Follows links, so that a swapped one counts as a change.
    fn of(path: &Path) -> Self {
        std::fs::metadata(path)
            .map(|meta| Self {
                modified: meta.modified().ok(),
                len: meta.len(),
            })
            .unwrap_or_default()
    }
}

fn read_pair(
    cert_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let cert_error = |message: String| TlsError::File {
        key: "cert_file",
        path: cert_file.to_owned(),
        message,
    };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| cert_error(describe(error)))?;
    if chain.is_empty() {
        return Err(cert_error("it holds no PEM certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| TlsError::File {
        key: "key_file",
        path: key_file.to_owned(),
        message: describe(error),
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
        cert: cert_file.to_owned(),
        key: key_file.to_owned(),
        source,
    })
}

/// Never quotes what is in the file.
fn describe(error: pki_types::pem::Error) -> String {
    match error {
        pki_types::pem::Error::Io(error) => {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "; correct the path",
                io::ErrorKind::PermissionDenied => "; let Layby's user read it",
                _ => "",
            };
            format!("cannot be read: {error}{hint}")
        }
        pki_types::pem::Error::NoItemsFound => "it holds nothing of the kind in PEM".to_owned(),
        _ => "it is not valid PEM".to_owned(),
    }
}

/// HTTP/2 in the protocol negotiation.
pub(super) const ALPN_H2: &[u8] = b"h2";
/// What is encrypted ahead of the socket: two records. A slow client has so much of our memory.
const RECORDS_BYTES: usize = 32 * 1024;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        config: TlsListener,
    }

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = TlsListener {
                listen: vec![],
                cert_file: dir.path().join("cert.pem"),
                key_file: dir.path().join("key.pem"),
            };
            Self { _dir: dir, config }
        }

        /// Writes a new pair; gives the certificate's DER.
        fn renew(&self, name: &str) -> Vec<u8> {
            let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(&self.config.cert_file, pair.cert.pem()).unwrap();
            std::fs::write(&self.config.key_file, pair.signing_key.serialize_pem()).unwrap();
            pair.cert.der().to_vec()
        }
    }

    fn in_use(certificate: &Certificate) -> Vec<u8> {
        certificate.current.load().cert[0].to_vec()
    }

    #[test]
    fn a_changed_pair_is_taken_up_and_an_unchanged_one_left_alone() {
        let files = Files::new();
        let first = files.renew("a.example");
        let certificate = Certificate::load(&files.config).unwrap();
        assert_eq!(in_use(&certificate), first);
        assert!(!certificate.reload_if_changed().unwrap());
        let second = files.renew("a-longer-name.example");
        assert!(certificate.reload_if_changed().unwrap());
        assert_eq!(in_use(&certificate), second);
    }

    #[test]
    fn the_old_certificate_stays_when_the_new_files_are_unusable() {
        let files = Files::new();
        let first = files.renew("a.example");
        let certificate = Certificate::load(&files.config).unwrap();
        std::fs::write(&files.config.cert_file, "garbage").unwrap();
        assert!(certificate.reload_if_changed().is_err());
        assert_eq!(in_use(&certificate), first);
        assert!(!certificate.reload_if_changed().unwrap(), "tried once only");
    }

    #[test]
    fn a_certificate_and_a_key_that_do_not_belong_together_are_refused() {
        let files = Files::new();
        files.renew("a.example");
        let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
        std::fs::write(&files.config.key_file, other.signing_key.serialize_pem()).unwrap();
        let error = Certificate::load(&files.config).unwrap_err();
        assert!(matches!(error, TlsError::Pair { .. }), "{error}");
    }

    #[test]
    fn a_missing_file_is_named_with_its_key() {
        let files = Files::new();
        let error = Certificate::load(&files.config).unwrap_err().to_string();
        assert!(
            error.contains("`cert_file`") && error.contains("cert.pem"),
            "{error}"
        );
    }
}

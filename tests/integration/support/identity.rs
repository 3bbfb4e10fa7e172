//! A certificate for loopback.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A self-signed certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_der: Vec<u8>,
    key_pem: String,
}

impl Identity {
    /// For `127.0.0.1`, `localhost` and these names.
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut all = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        all.extend(names.iter().map(|&name| name.to_owned()));
        let made = rcgen::generate_simple_self_signed(all).expect("a certificate");
        Self {
            certificate: made.cert.der().clone(),
            certificate_pem: made.cert.pem(),
            key_der: made.signing_key.serialize_der(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    /// Writes `cert.pem` and `key.pem`.
    pub(crate) fn write_to(&self, dir: &Path) {
        std::fs::write(dir.join("cert.pem"), &self.certificate_pem).expect("the certificate");
        std::fs::write(dir.join("key.pem"), &self.key_pem).expect("the key");
    }

    /// For a server with this certificate that speaks HTTP/1.1.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("certificate and key belong together");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// For a client that trusts this certificate and offers these protocols.
    pub(crate) fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

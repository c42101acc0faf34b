//! Server-side TLS that follows its certificate and key files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::files::{Content, FileSet, Unreadable};

/// Why a certificate and key cannot serve. Never quotes either.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the certificate file holds no PEM certificate")]
    NoCertificate,
    #[error("the key file holds no PEM private key")]
    NoKey,
    #[error("the certificate and key do not work together: {0}")]
    Unusable(rustls::Error),
}

/// A server configuration from PEM: the certificate chain, leaf first, and its key. Speaks HTTP/2 and HTTP/1.1.
pub fn server_config(certificates: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::NoCertificate)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A certificate and key in files, and the configuration made of them, which listeners share.
pub struct Reloading {
    files: FileSet,
    config: RustlsConfig,
}

impl Reloading {
    /// Reads both files; an error here is one of configuration, and the process should not start.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let mut files = FileSet::new([certificate, key]);
        let config = build(files.read())?;
        Ok(Self {
            files,
            config: RustlsConfig::from_config(Arc::new(config)),
        })
    }

    /// For [`crate::serve::run`] or an `axum-server` of one's own; new connections use what was last loaded.
    pub fn config(&self) -> RustlsConfig {
        self.config.clone()
    }

    /// Follows the files until `shutdown`, looking every `interval`. A new pair that does not work is logged once, and
    /// the old one stays.
    pub async fn watch(mut self, interval: Duration, shutdown: CancellationToken) {
        while let Some(contents) = shutdown.run_until_cancelled(self.files.changed(interval)).await {
            match build(contents) {
                Ok(config) => {
                    self.config.reload_from_config(Arc::new(config));
                    tracing::info!("serving the new TLS certificate");
                }
                Err(error) => tracing::error!(
                    %error,
                    "the new TLS certificate or key does not work; going on with the old one until the files change again"
                ),
            }
        }
    }
}

fn build(contents: Vec<Content>) -> Result<ServerConfig, TlsError> {
    let [certificate, key] = <[Content; 2]>::try_from(contents).expect("two files were asked for");
    server_config(&certificate?, &key?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[tokio::test]
    async fn a_new_pair_is_served_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let write = |pair: &(String, String)| {
            fs::write(&cert, &pair.0).unwrap();
            fs::write(&key, &pair.1).unwrap();
        };
        write(&pair("one.test"));
        let tls = Reloading::load(cert.clone(), key.clone()).unwrap();
        let config = tls.config();
        let first = config.get_inner();
        let shutdown = CancellationToken::new();
        let interval = Duration::from_millis(5);
        let task = tokio::spawn(tls.watch(interval, shutdown.clone()));

        // The key of another pair: refused.
        fs::write(&key, pair("two.test").1).unwrap();
        tokio::time::sleep(interval * 20).await;
        assert!(Arc::ptr_eq(&config.get_inner(), &first));

        write(&pair("three.test"));
        for _ in 0..400 {
            if !Arc::ptr_eq(&config.get_inner(), &first) {
                break;
            }
            tokio::time::sleep(interval).await;
        }
        assert!(!Arc::ptr_eq(&config.get_inner(), &first));
        shutdown.cancel();
        task.await.unwrap();
    }

    #[test]
    fn faults_are_told_apart_and_quote_nothing() {
        let (cert, key) = pair("a.test");
        assert!(matches!(
            server_config(b"", key.as_bytes()),
            Err(TlsError::NoCertificate)
        ));
        assert!(matches!(
            server_config(cert.as_bytes(), b"canary"),
            Err(TlsError::NoKey)
        ));
        let (_, other) = pair("b.test");
        let error = server_config(cert.as_bytes(), other.as_bytes()).unwrap_err();
        assert!(matches!(error, TlsError::Unusable(_)), "{error}");
        let error = Reloading::load("/nonexistent/tls.crt".into(), "/nonexistent/tls.key".into())
            .err()
            .unwrap();
        assert!(error.to_string().contains("/nonexistent/tls.crt"));
    }
}

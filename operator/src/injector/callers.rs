//! Client certificates: where the API server has one for webhooks, nobody else is answered.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Who may call, as the file said when it was read last.
#[derive(Debug)]
pub struct Callers {
    file: PathBuf,
    /// What the file held.
    pem: Vec<u8>,
    verifier: Arc<Named>,
}

/// Why the CA of client certificates is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    #[error("--client-ca-file {path}: {source}", path = path.display())]
    Unreadable {
        path: PathBuf,
        source: sealpod_runtime::files::Unreadable,
    },
    #[error("--client-ca-file {path} holds no PEM certificate of a CA", path = .0.display())]
    NoAuthority(PathBuf),
}

/// The usual verification, and a common name.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    name: Option<String>,
}

impl Callers {
    pub fn read(path: &Path, name: Option<String>) -> Result<Self, CallersError> {
        Self::of(path, content(path)?, name)
    }

    /// What the file says now, where that is something else: its CA is renewed like any other.
    pub fn changed(&self) -> Result<Option<Self>, CallersError> {
        let pem = content(&self.file)?;
        if pem == self.pem {
            return Ok(None);
        }
        Self::of(&self.file, pem, self.verifier.name.clone()).map(Some)
    }

    fn of(path: &Path, pem: Vec<u8>, name: Option<String>) -> Result<Self, CallersError> {
        let unusable = || CallersError::NoAuthority(path.to_owned());
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(&pem) {
            let authority = authority.map_err(|_| unusable())?;
            roots.add(authority).map_err(|_| unusable())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self {
            file: path.to_owned(),
            pem,
            verifier: Arc::new(Named {
                inner: inner.map_err(|_| unusable())?,
                name,
            }),
        })
    }

    /// Makes a listener refuse the handshake of everybody else.
    pub fn require(&self, config: &mut ServerConfig) -> anyhow::Result<()> {
        let provider = Arc::clone(config.crypto_provider());
        let mut strict = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::clone(&self.verifier) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&config.cert_resolver));
        strict.alpn_protocols.clone_from(&config.alpn_protocols);
        *config = strict;
        Ok(())
    }
}

fn content(path: &Path) -> Result<Vec<u8>, CallersError> {
    let read = sealpod_runtime::files::read(path).map_err(|source| CallersError::Unreadable {
        path: path.to_owned(),
        source,
    });
    read.map(|pem| pem.to_vec())
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match &self.name {
            Some(name) if !is_named(end_entity, name) => Err(CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let mut names = certificate.subject().iter_common_name();
    names.any(|common| common.as_str() == Ok(name))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};
    use sealpod_runtime::tls;

    use crate::certs::{Pair, issue, new_authority};

    /// A certificate of a client.
    pub fn client(authority: &Pair, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let signer = KeyPair::from_pem(&authority.key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, signer).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (
            certificate.der().clone(),
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
    }

    /// Both ends of a connection, until the handshake is done or refused.
    fn shake_hands(server: &Arc<ServerConfig>, client: ClientConfig) -> Result<(), rustls::Error> {
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), "a.test".try_into().unwrap()).unwrap();
        while server.is_handshaking() || client.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn nobody_is_answered_but_who_has_a_certificate_of_that_ca_and_name() {
        let now = jiff::Timestamp::now();
        let [ours, theirs, other] = ["ours", "theirs", "other"].map(|name| new_authority(name, now).unwrap());
        let leaf = issue(&ours, &["a.test".to_owned()], now, std::time::Duration::from_hours(1)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        std::fs::write(&file, &theirs.certificate).unwrap();
        let server = |name: Option<&str>| {
            let mut config = tls::server_config(leaf.certificate.as_bytes(), leaf.key.as_bytes()).unwrap();
            Callers::read(&file, name.map(str::to_owned))
                .unwrap()
                .require(&mut config)
                .unwrap();
            assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
            Arc::new(config)
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ours.certificate.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots.clone())
        };
        let with = |authority: &Pair, name: &str| {
            let (certificate, key) = client(authority, name);
            builder().with_client_auth_cert(vec![certificate], key).unwrap()
        };
        shake_hands(&server(None), with(&theirs, "anybody")).unwrap();
        shake_hands(&server(Some("kube-apiserver")), with(&theirs, "kube-apiserver")).unwrap();
        for (name, client) in [
            (None, builder().with_no_client_auth()),
            (None, with(&other, "kube-apiserver")),
            (Some("kube-apiserver"), with(&theirs, "kubelet")),
        ] {
            assert!(shake_hands(&server(name), client).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let error = || Callers::read(&file, None).unwrap_err().to_string();
        assert!(error().contains("ca.crt"));
        std::fs::write(&file, "canary").unwrap();
        let text = error();
        assert!(
            text.contains("no PEM certificate") && !text.contains("canary"),
            "{text}"
        );
    }
}

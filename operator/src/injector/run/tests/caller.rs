//! Asks the webhook as an API server does, at a time of the test's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::{Value, json};

use super::super::super::certs::tests::{CONFIGURATION, bundle};
use super::super::super::tests::pod_with;
use super::super::*;
use crate::fake::FakeApi;

const NAME: &str = "sealpod-injector.sealpod.svc";

/// The usual verification at a time of the test's own, so that years pass in no time.
#[derive(Debug)]
struct At(Arc<WebPkiServerVerifier>, UnixTime);

impl ServerCertVerifier for At {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_server_cert(end_entity, intermediates, name, ocsp, self.1)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What an API server knows of the webhook.
#[derive(Debug, Clone)]
pub struct Registered {
    pub bundle: String,
    pub path: String,
}

impl Registered {
    pub fn read(api: &FakeApi) -> Self {
        let webhook = api.get(CONFIGURATION).unwrap()["webhooks"][1].clone();
        Self {
            bundle: bundle(api),
            path: webhook["clientConfig"]["service"]["path"].as_str().unwrap().to_owned(),
        }
    }

    /// An API server's client at that time, which knows no connection yet.
    pub fn client(&self, address: SocketAddr, now: Timestamp) -> reqwest::Client {
        self.client_with(None, address, now)
    }

    /// The same, with a certificate of its own.
    pub fn client_with(
        &self,
        certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
        address: SocketAddr,
        now: Timestamp,
    ) -> reqwest::Client {
        self.builder(certificate, address, now).build().unwrap()
    }

    /// A client that comes from `source`.
    pub fn client_from(&self, source: Ipv4Addr, address: SocketAddr, now: Timestamp) -> reqwest::Client {
        let builder = self.builder(None, address, now);
        builder.local_address(IpAddr::V4(source)).build().unwrap()
    }

    fn builder(
        &self,
        certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
        address: SocketAddr,
        now: Timestamp,
    ) -> reqwest::ClientBuilder {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.bundle.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(At(verifier.unwrap(), at)));
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
        builder.no_proxy().resolve(NAME, address)
    }

    pub async fn post(&self, client: &reqwest::Client, address: SocketAddr) -> reqwest::Result<reqwest::Response> {
        let url = format!("https://{NAME}:{}{}", address.port(), self.path);
        client.post(url).body(review().to_string()).send().await
    }

    /// Asks for a pod, and fails unless it is injected.
    pub async fn ask(&self, client: &reqwest::Client, address: SocketAddr) {
        let answer = self.post(client, address).await.expect("the webhook answers");
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert!(answer["response"]["patch"].is_string(), "{answer}");
    }
}

fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": "shop", "object": pod_with(&json!({})),
        },
    })
}

use std::net::SocketAddr;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::cache::tests::{Filled, secret_binding};
use super::super::certs::tests::{CONFIGURATION, after, bundle, installed, names};
use super::super::tests::{pod_with, settings};
use super::*;
use crate::certs;
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
struct Registered {
    bundle: String,
    path: String,
}

impl Registered {
    fn read(api: &FakeApi) -> Self {
        let webhook = api.get(CONFIGURATION).unwrap()["webhooks"][1].clone();
        Self {
            bundle: bundle(api),
            path: webhook["clientConfig"]["service"]["path"].as_str().unwrap().to_owned(),
        }
    }

    /// An API server's client at that time, which knows no connection yet.
    fn client(&self, address: SocketAddr, now: Timestamp) -> reqwest::Client {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.bundle.as_bytes()) {
            roots.add(authority.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(At(verifier.unwrap(), at)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
        builder.no_proxy().resolve(NAME, address).build().unwrap()
    }

    /// Asks for a pod, and fails unless it is injected.
    async fn ask(&self, client: &reqwest::Client, address: SocketAddr) {
        let url = format!("https://{NAME}:{}{}", address.port(), self.path);
        let answer = client
            .post(url)
            .body(review().to_string())
            .send()
            .await
            .expect("the webhook answers");
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

/// A replica that serves.
struct Replica {
    keeper: Keeper,
    served: Served,
    address: SocketAddr,
    stop: CancellationToken,
    /// A connection that is never closed.
    kept: reqwest::Client,
}

impl Replica {
    async fn start(api: &FakeApi, lives: Lives, filled: &Filled) -> Self {
        let keeper = Keeper::new(api.client(), names(), Source::Own(lives));
        let served = Served::new(keeper.keep(after(Duration::ZERO)).await.unwrap(), None).unwrap();
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let webhook = Webhook::new(filled.0.clone(), settings(), metrics, Arc::clone(&served.segment));
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tls = Some(served.tls.clone());
        tokio::spawn(serve::run(
            listener,
            tls,
            router(Arc::new(webhook)),
            stop.clone(),
            DRAIN,
        ));
        let kept = Registered::read(api).client(address, after(Duration::ZERO));
        Self {
            keeper,
            served,
            address,
            stop,
            kept,
        }
    }
}

#[test]
fn the_first_certificate_is_there_soon_after_what_was_in_its_way_is_gone() {
    let mut retries = std::iter::successors(Some(FIRST_RETRY), |retry| Some(longer(*retry))).take(20);
    assert!(retries.all(|retry| retry <= Duration::from_secs(2)));
}

/// The API server of `api`, and a watch whose events the test sends.
fn watched(
    api: &FakeApi,
) -> (
    kube::Client,
    mpsc::UnboundedSender<Value>,
    mpsc::UnboundedReceiver<String>,
) {
    let (send, events) = mpsc::unbounded_channel::<Value>();
    let (asked, asks) = mpsc::unbounded_channel();
    let (inner, events) = (api.client(), Arc::new(std::sync::Mutex::new(Some(events))));
    let service = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
        let (inner, events, asked) = (inner.clone(), Arc::clone(&events), asked.clone());
        async move {
            let uri = request.uri().to_string();
            if !uri.contains("watch=true") {
                let answer = inner.send(request).await.map_err(tower::BoxError::from)?;
                return Ok::<_, tower::BoxError>(answer.map(axum::body::Body::new));
            }
            asked.send(uri).unwrap();
            let Some(events) = events.lock().unwrap().take() else {
                return std::future::pending().await;
            };
            let lines = futures::stream::unfold(events, async |mut events| {
                let line = format!("{}\n", events.recv().await?);
                Some((Ok::<_, std::io::Error>(line.into_bytes()), events))
            });
            Ok(axum::http::Response::new(axum::body::Body::from_stream(lines)))
        }
    });
    (kube::Client::new(service, "sealpod"), send, asks)
}

#[tokio::test]
async fn what_somebody_else_writes_into_the_webhook_configuration_is_put_back_when_it_is_heard_of() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let api = installed();
    let (client, events, mut asks) = watched(&api);
    let keeping = Keeping {
        keeper: Keeper::new(client, names(), Source::Own(Lives::default())),
        // By the clock alone it would never be looked at.
        check: Duration::from_hours(1),
        cache: Filled::default().0,
        readiness: Readiness::new(),
        metrics: Metrics::new(&mut prometheus_client::registry::Registry::default()),
    };
    let served = Served::new(keeping.keeper.keep(Timestamp::now()).await.unwrap(), None).unwrap();
    let good = api.get(CONFIGURATION).unwrap();
    let following = tokio::spawn(async move { keeping.follow(served).await });
    let asked = asks.recv().await.unwrap();
    assert!(
        asked.contains("fieldSelector=metadata.name%3Dsealpod-injector"),
        "{asked}"
    );

    for (pointer, drift) in [
        ("/webhooks/1/clientConfig/caBundle", json!(null)),
        ("/webhooks/1/clientConfig/service/path", json!("/elsewhere")),
    ] {
        let mut drifted = api.get(CONFIGURATION).unwrap();
        *drifted.pointer_mut(pointer).unwrap() = drift;
        api.put(CONFIGURATION, drifted.clone());
        events.send(json!({"type": "MODIFIED", "object": drifted})).unwrap();
        let back = async {
            while api.get(CONFIGURATION).unwrap().pointer(pointer) != good.pointer(pointer) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), back)
            .await
            .expect("it is put back");
    }
    following.abort();
}

/// Two replicas look one after the other; the API server hears of a change of its configuration one round later. In each
/// round it asks both, on a new connection and on the one that it has had since the beginning.
#[tokio::test]
async fn ca_and_certificate_change_again_and_again_under_requests_without_a_failure() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let minute = Duration::from_mins(1);
    let lives = Lives::new(Some(minute * 3), Some(minute)).unwrap();
    let (api, filled) = (installed(), Filled::default());
    filled.put(&secret_binding("shop", "db", &json!({})));
    let mut replicas = [
        Replica::start(&api, lives, &filled).await,
        Replica::start(&api, lives, &filled).await,
    ];
    let first = replicas.each_ref().map(|replica| replica.served.current.clone());
    assert_eq!(first[0], first[1]);
    let begun = Registered::read(&api);
    let (mut seen, mut bundles, mut leaves) = (begun.clone(), 0, vec![]);
    for round in 1..=240 {
        let now = after(lives.check() * round);
        let next = Registered::read(&api);
        for (turn, replica) in replicas.iter_mut().enumerate() {
            // Not in step: one of them is a round behind.
            if (round as usize + turn).is_multiple_of(2) {
                let new = replica.keeper.keep(now).await.unwrap();
                if new != replica.served.current {
                    leaves.push(new.pair.certificate.clone());
                    replica.served.take_up(new).unwrap();
                }
            }
            let fresh = seen.client(replica.address, now);
            seen.ask(&fresh, replica.address).await;
            seen.ask(&replica.kept, replica.address).await;
        }
        bundles = bundles.max(certs::count(&seen.bundle));
        seen = next;
    }
    leaves.sort();
    leaves.dedup();
    assert!(leaves.len() >= 8, "{} certificates in eight lives", leaves.len());
    assert!(
        bundles >= 2 && !seen.bundle.contains(&begun.bundle),
        "the CA changed with an overlap"
    );
    assert_eq!(seen.path, begun.path);

    // The lives are those of every day again: what is served still ends soon, and is followed in time.
    let begun = after(lives.check() * 240);
    for replica in &mut replicas {
        replica.keeper = Keeper::new(api.client(), names(), Source::Own(Lives::default()));
    }
    for round in 1..=120 {
        let now = begun.checked_add(lives.check() * round).unwrap();
        let next = Registered::read(&api);
        for replica in &mut replicas {
            let new = replica.keeper.keep(now).await.unwrap();
            if new != replica.served.current {
                replica.served.take_up(new).unwrap();
            }
            let fresh = seen.client(replica.address, now);
            seen.ask(&fresh, replica.address).await;
        }
        seen = next;
    }
    let left = replicas[0].served.current.certificate_until.as_second() - begun.as_second();
    assert!(left > 80 * 24 * 3_600, "{left} s are left");
    for replica in replicas {
        replica.stop.cancel();
    }
}

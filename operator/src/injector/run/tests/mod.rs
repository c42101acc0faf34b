mod caller;
mod renewals;
mod strangers;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::cache::tests::{Filled, secret_binding};
use super::super::callers::tests::client as client_certificate;
use super::super::certs::tests::{CONFIGURATION, installed, names};
use super::super::tests::settings;
use super::*;
use crate::certs;
use crate::fake::FakeApi;
use caller::Registered;

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
    let mut registry = prometheus_client::registry::Registry::default();
    let keeping = Keeping {
        keeper: Keeper::new(client.clone(), names(), Source::Own(Lives::default())),
        client,
        // By the clock alone it would never be looked at.
        check: Duration::from_hours(1),
        cache: Filled::default().0,
        readiness: Readiness::new(),
        metrics: Metrics::new(&mut registry),
    };
    let served = Served::new(keeping.keeper.keep(Timestamp::now()).await.unwrap(), None).unwrap();
    let current = served.current.clone();
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

    // One look may have put back both, and tells of what it found when it is over.
    for (certificate, until) in [
        ("ca", current.authority_until.unwrap()),
        ("serving", current.certificate_until),
    ] {
        let line = format!("{{certificate=\"{certificate}\"}} {}\n", until.as_second());
        let is_told = async || {
            let mut numbers = String::new();
            prometheus_client::encoding::text::encode(&mut numbers, &registry).unwrap();
            numbers.contains(&line)
        };
        self::until(&line, is_told).await;
    }
    following.abort();
}

/// The way from the start to requests that are answered, against a cluster that says it is 1.`minor`.
struct Starting {
    api: FakeApi,
    readiness: Readiness,
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Starting {
    fn on(minor: &str, callers: Option<Callers>) -> Self {
        Self::within(limits(serve::Limits::default().connections), minor, callers)
    }

    fn within(limits: serve::Limits, minor: &str, callers: Option<Callers>) -> Self {
        let (api, filled, readiness) = (installed(), Filled::default(), Readiness::new());
        api.put(
            "/version",
            json!({
                "major": "1", "minor": minor, "gitVersion": "", "gitCommit": "", "gitTreeState": "", "buildDate": "",
                "goVersion": "", "compiler": "", "platform": "",
            }),
        );
        filled.put(&secret_binding("shop", "db", &json!({})));
        readiness.block(READINESS, "as in run");
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let keeping = Keeping {
            client: api.client(),
            keeper: Keeper::new(api.client(), names(), Source::Own(Lives::default())),
            check: Duration::ZERO,
            cache: filled.0.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
        };
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let webhook = move |segment| Webhook::new(filled.0, settings(), metrics, segment);
        let listening = Listening {
            listener,
            limits,
            callers,
        };
        let serving = tokio::spawn(keep_and_serve(keeping, listening, stop.clone(), webhook));
        Self {
            api,
            readiness,
            address,
            stop,
            serving,
        }
    }
}

#[tokio::test]
async fn in_a_cluster_that_is_too_old_it_ends_before_anything_is_made() {
    let old = Starting::on("32", None);
    let error = tokio::time::timeout(Duration::from_secs(10), old.serving).await;
    let error = error.expect("it ends").unwrap().unwrap_err().to_string();
    assert!(error.contains("this cluster is 1.32"), "{error}");
    assert_eq!(old.api.take_calls(), ["GET /version"]);
    assert!(!old.readiness.is_ready());
}

/// The CA of the API server's own client certificates, and the file in which the injector has it.
struct Clients {
    authority: certs::Pair,
    dir: tempfile::TempDir,
}

impl Clients {
    fn new() -> Self {
        let authority = certs::new_authority("callers", Timestamp::now()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let clients = Self { authority, dir };
        clients.hold(&clients.authority.certificate);
        clients
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("ca.crt")
    }

    fn hold(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    /// There is another CA from now on.
    fn rotate(&mut self) {
        self.authority = certs::new_authority("new callers", Timestamp::now()).unwrap();
        self.hold(&self.authority.certificate);
    }

    /// What holds requests to it.
    fn callers(&self) -> Callers {
        Callers::read(&self.file(), Some("kube-apiserver".to_owned())).unwrap()
    }

    /// One of these asks.
    fn named(&self, name: &str, seen: &Registered, address: SocketAddr, now: Timestamp) -> reqwest::Client {
        seen.client_with(Some(client_certificate(&self.authority, name)), address, now)
    }
}

/// Some time, and a failure afterwards.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .expect(what);
}

#[tokio::test]
async fn from_the_first_request_on_only_who_has_a_clients_certificate_is_answered() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut clients = Clients::new();
    let started = Starting::on("33", Some(clients.callers()));
    until("it serves", async || started.readiness.is_ready()).await;
    let (seen, now) = (Registered::read(&started.api), Timestamp::now());
    let named = |clients: &Clients, name| clients.named(name, &seen, started.address, now);
    let before = named(&clients, "kube-apiserver");
    seen.ask(&before, started.address).await;
    for stranger in [seen.client(started.address, now), named(&clients, "kubelet")] {
        assert!(seen.post(&stranger, started.address).await.is_err());
    }

    // Its CA is another one: that needs no restart, and who has a certificate of the one before is a stranger.
    let before = named(&clients, "kube-apiserver");
    clients.rotate();
    let new = async || {
        let new = named(&clients, "kube-apiserver");
        seen.post(&new, started.address).await.is_ok()
    };
    until("the new CA is followed", new).await;
    for stranger in [before, named(&clients, "kubelet")] {
        assert!(seen.post(&stranger, started.address).await.is_err());
    }
    started.stop.cancel();
    started.serving.await.unwrap().unwrap();
}

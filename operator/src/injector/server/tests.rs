use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{Method, Request as HttpRequest};
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use sealpod_runtime::{serve, tls};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::super::cache::tests::{Filled, secret_binding};
use super::super::tests::{memory, pod_with, settings};
use super::*;
use crate::certs::{Pair, issue, new_authority};

const NAME: &str = "sealpod-injector.sealpod.svc";

fn metrics() -> Metrics {
    Metrics::new(&mut prometheus_client::registry::Registry::default())
}

fn webhook(filled: &Filled) -> Arc<Webhook> {
    let segment = Arc::new(ArcSwap::from_pointee("segment".to_owned()));
    Arc::new(Webhook::new(filled.0.clone(), settings(), metrics(), segment))
}

fn review(namespace: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": namespace, "object": pod_with(&json!({})),
        },
    })
}

async fn ask(router: Router, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = HttpRequest::builder()
        .method(method)
        .uri(path)
        .body(body.into())
        .unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn only_a_post_to_the_random_path_is_answered() {
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &json!({})));
    let router = router(webhook(&filled));
    let body = review("shop").to_string();
    for (method, path) in [
        (Method::POST, "/mutate"),
        (Method::POST, "/mutate/"),
        (Method::POST, "/mutate/other"),
        (Method::POST, "/mutate/segment/more"),
        (Method::POST, "/"),
        (Method::GET, "/mutate/segment"),
        (Method::GET, "/metrics"),
    ] {
        let (status, text) = ask(router.clone(), method, path, body.clone()).await;
        assert_eq!((status, text.as_str()), (StatusCode::NOT_FOUND, ""), "{path}");
    }
    let (status, text) = ask(router, Method::POST, "/mutate/segment", body).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    assert!(answer["response"]["patch"].is_string());
}

#[tokio::test]
async fn warnings_of_a_pod_are_counted_when_it_is_asked_about_first_and_not_for_a_dry_run() {
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &json!({})));
    let mut registry = prometheus_client::registry::Registry::default();
    let segment = Arc::new(ArcSwap::from_pointee("segment".to_owned()));
    let webhook = Webhook::new(filled.0.clone(), settings(), Metrics::new(&mut registry), segment);
    let router = router(Arc::new(webhook));
    let mut review = review("shop");
    let annotations = &mut review["request"]["object"]["metadata"]["annotations"];
    *annotations = json!({"sealpod.dev/colour": "red"});
    review["request"]["dryRun"] = json!(true);
    let (_, text) = ask(router.clone(), Method::POST, "/mutate/segment", review.to_string()).await;
    assert!(text.contains("colour"), "who asks is told: {text}");
    let mut numbers = String::new();
    prometheus_client::encoding::text::encode(&mut numbers, &registry).unwrap();
    assert!(numbers.contains("injector_warnings_total 0\n"), "{numbers}");
    review["request"]["dryRun"] = json!(false);
    for injected_before in [false, true] {
        if injected_before {
            review["request"]["object"]["metadata"]["annotations"]["sealpod.dev/injected"] = json!("db");
        }
        let (_, text) = ask(router.clone(), Method::POST, "/mutate/segment", review.to_string()).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        // That the binding is not ready, and the annotation.
        assert_eq!(answer["response"]["warnings"].as_array().unwrap().len(), 2, "{answer}");
        let mut numbers = String::new();
        prometheus_client::encoding::text::encode(&mut numbers, &registry).unwrap();
        assert!(numbers.contains("injector_warnings_total 2\n"), "{numbers}");
    }
}

/// Counts what the webhook tells on its thread.
struct Told(Arc<AtomicUsize>);

impl tracing::Subscriber for Told {
    fn enabled(&self, of: &tracing::Metadata<'_>) -> bool {
        of.is_event() && of.target().ends_with("injector::server") && *of.level() == tracing::Level::INFO
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn refusals_are_in_the_log_once_for_each_kind_of_pod_and_no_more_than_a_namespace_may_have() {
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &json!({})));
    let router = router(webhook(&filled));
    let told = Arc::new(AtomicUsize::new(0));
    let _told = tracing::subscriber::set_default(Told(Arc::clone(&told)));
    let refuse = async |namespace: &str, kind: usize| {
        let mut review = review(namespace);
        let metadata = &mut review["request"]["object"]["metadata"];
        metadata["generateName"] = json!(format!("web-{kind}-"));
        metadata["annotations"] = json!({"sealpod.dev/mode": "no such mode"});
        let (_, text) = ask(router.clone(), Method::POST, "/mutate/segment", review.to_string()).await;
        assert!(text.contains("no such mode"), "{text}");
        told.load(Ordering::Relaxed)
    };
    // As a controller tries.
    for _ in 0..20 {
        assert_eq!(refuse("shop", 0).await, 1);
    }
    for kind in 1..100 {
        refuse("shop", kind).await;
    }
    assert_eq!(told.load(Ordering::Relaxed), 60);
    filled.put(&secret_binding("mail", "db", &json!({})));
    assert_eq!(refuse("mail", 0).await, 61, "another namespace has lines of its own");
}

#[tokio::test]
async fn what_is_no_review_gets_a_fixed_text() {
    let router = router(webhook(&Filled::default()));
    let post = |body: Vec<u8>| ask(router.clone(), Method::POST, "/mutate/segment", body);
    let (status, text) = post(b"canary".to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(!text.contains("canary"));
    let (status, _) = post(vec![b' '; MAX_BODY_BYTES + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    // Of one that comes in pieces nobody knows the length.
    let streamed = |length: usize| {
        let pieces = [vec![b' '; MAX_BODY_BYTES], vec![b' '; length - MAX_BODY_BYTES]];
        let body = Body::from_stream(futures::stream::iter(pieces.map(Ok::<_, std::io::Error>)));
        assert_eq!(body.size_hint().upper(), None);
        ask(router.clone(), Method::POST, "/mutate/segment", body)
    };
    assert_eq!(streamed(MAX_BODY_BYTES).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(streamed(MAX_BODY_BYTES + 1).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert_eq!(post(deep).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off_and_holds_no_room() {
    let mut webhook = webhook(&Filled::default());
    Arc::get_mut(&mut webhook).unwrap().deadline = Duration::from_millis(50);
    let router = router(Arc::clone(&webhook));
    let endless = || Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let all = (0..=TEXTS / MAX_BODY_BYTES).map(|_| ask(router.clone(), Method::POST, "/mutate/segment", endless()));
    for (status, _) in futures::future::join_all(all).await {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(webhook.texts.available_permits(), TEXTS / PERMIT);
}

#[test]
fn the_deadline_is_the_api_servers_own() {
    let chart = include_str!("../../../../charts/sealpod/templates/injector/webhook.yaml");
    assert!(chart.contains(&format!("timeoutSeconds: {}\n", DEADLINE.as_secs())));
    assert_eq!(webhook(&Filled::default()).deadline, DEADLINE);
}

/// A review of a pod with so many of the smallest maps there are.
fn of_small_maps(number: usize) -> Vec<u8> {
    let mut review = review("shop");
    let toleration = json!({"key": "a"});
    review["request"]["object"]["spec"]["tolerations"] = std::iter::repeat_n(toleration, number).collect();
    review.to_string().into_bytes()
}

#[tokio::test]
async fn a_pod_that_would_take_too_much_memory_is_refused_unread() {
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &json!({})));
    let webhook = webhook(&filled);
    let router = router(Arc::clone(&webhook));
    let post = async |number| {
        let (status, text) = ask(router.clone(), Method::POST, "/mutate/segment", of_small_maps(number)).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_str::<Value>(&text).unwrap()["response"].clone()
    };
    let refused = post(200_000).await;
    assert_eq!((&refused["uid"], &refused["allowed"]), (&json!("u"), &json!(false)));
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("more fields") && message.contains("sealpod.dev/inject"),
        "{message}"
    );
    assert_eq!(post(5_000).await["allowed"], true);
    for (room, all) in [(&webhook.texts, TEXTS), (&webhook.pods, PODS)] {
        assert_eq!(room.available_permits(), all / PERMIT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn whatever_pods_are_asked_for_at_once_the_memory_is_bounded() {
    const NAME: &str = "injector::server::tests::whatever_pods_are_asked_for_at_once_the_memory_is_bounded";
    if let Some(grown) = memory::grown_in_a_process_of(NAME) {
        assert!(grown < 96 * MIB, "grown by {} MiB", grown / MIB);
        return;
    }
    // The heaviest that is read, at most as many bindings wanted as there are, and what is refused.
    let heaviest = HEAVIEST_POD / 2 / weight_of_a_small_map();
    let router = router(webhook(&Filled::default()));
    let bodies = [heaviest - 100, 200_000, heaviest / 40].map(|number| axum::body::Bytes::from(of_small_maps(number)));
    let before = memory::now();
    let mut all = tokio::task::JoinSet::new();
    for at in 0..60 {
        let (router, body) = (router.clone(), bodies[at % bodies.len()].clone());
        all.spawn(async move { ask(router, Method::POST, "/mutate/segment", body).await.0 });
    }
    while let Some(status) = all.join_next().await {
        assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status.unwrap()));
    }
    memory::tell_growth(before);
}

/// What one more of them weighs.
fn weight_of_a_small_map() -> usize {
    let of = |number| review::open(&of_small_maps(number)).unwrap().weight() / 2;
    of(3) - of(2)
}

#[tokio::test]
async fn a_binding_that_comes_a_moment_after_its_pod_is_found() {
    let filled = Filled::default();
    let router = router(webhook(&filled));
    let asking = tokio::spawn(ask(router, Method::POST, "/mutate/segment", review("shop").to_string()));
    tokio::time::sleep(PATIENCE_STEP * 2).await;
    filled.put(&secret_binding("shop", "db", &json!({})));
    let (_, text) = asking.await.unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
}

#[tokio::test]
async fn a_binding_that_does_not_come_is_refused_in_time() {
    let begun = Instant::now();
    let router = router(webhook(&Filled::default()));
    let (_, text) = ask(router, Method::POST, "/mutate/segment", review("shop").to_string()).await;
    assert!(text.contains("no SecretBinding in namespace"), "{text}");
    assert!(begun.elapsed() < DEADLINE);
}

#[tokio::test]
async fn a_refused_pod_is_judged_anew_only_when_the_bindings_have_changed() {
    let cache = Filled::default().0;
    let (empty, other) = (cache.of("shop"), cache.of("other"));
    assert!(empty.has_bindings_of(&other), "none are none");
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &json!({})));
    let before = filled.0.of("shop");
    assert!(!before.has_bindings_of(&empty) && before.has_bindings_of(&filled.0.of("shop")));
    filled.put(&secret_binding("other", "db", &json!({})));
    assert!(
        before.has_bindings_of(&filled.0.of("shop")),
        "those of another namespace"
    );
    filled.put(&secret_binding("shop", "mail", &json!({})));
    assert!(!before.has_bindings_of(&filled.0.of("shop")));
}

fn leaf(authority: &Pair) -> Pair {
    issue(authority, &[NAME.to_owned()], Timestamp::now(), Duration::from_hours(1)).unwrap()
}

/// A client that trusts one CA only, as the API server does.
fn client(authority: &Pair, address: SocketAddr) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificate = reqwest::Certificate::from_pem(authority.certificate.as_bytes()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([certificate])
        .no_proxy()
        .resolve(NAME, address)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_is_answered_and_a_new_certificate_needs_no_restart() {
    let (old, new) = (
        new_authority("old", Timestamp::now()).unwrap(),
        new_authority("new", Timestamp::now()).unwrap(),
    );
    let config = |pair: &Pair| Arc::new(tls::server_config(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap());
    let tls = RustlsConfig::from_config(config(&leaf(&old)));
    let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let router = router(webhook(&Filled::default()));
    let task = tokio::spawn(serve::run(
        listener,
        Some(tls.clone()),
        router,
        stop.clone(),
        Duration::from_secs(1),
    ));

    let post = |authority: &Pair| {
        let url = format!("https://{NAME}:{}/mutate/segment", address.port());
        client(authority, address)
            .post(url)
            .body(review("shop").to_string())
            .send()
    };
    let answer = post(&old).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("no SecretBinding"));
    assert!(post(&new).await.unwrap_err().is_connect());

    tls.reload_from_config(config(&leaf(&new)));
    assert_eq!(post(&new).await.unwrap().status(), 200);
    assert!(post(&old).await.unwrap_err().is_connect());
    stop.cancel();
    task.await.unwrap().unwrap();
}

/// The first message of a client that knows nothing newer than this version, 0x0302 for TLS 1.1.
fn client_hello(version: u16) -> Vec<u8> {
    let mut hello = version.to_be_bytes().to_vec();
    hello.extend([7; 32]);
    // No session, one cipher suite, no compression, one extension: a signature that it takes.
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn a_client_that_knows_no_newer_tls_than_1_1_is_turned_away_for_that() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const PROTOCOL_VERSION: u8 = 70;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pair = leaf(&new_authority("ca", Timestamp::now()).unwrap());
    let config = tls::server_config(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
    let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let tls = Some(RustlsConfig::from_config(Arc::new(config)));
    let router = router(webhook(&Filled::default()));
    let task = tokio::spawn(serve::run(listener, tls, router, stop.clone(), Duration::from_secs(1)));
    for version in [0x0301, 0x0302] {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        connection.write_all(&client_hello(version)).await.unwrap();
        let mut answer = vec![];
        connection.read_to_end(&mut answer).await.unwrap();
        assert_eq!(
            (answer[0], &answer[5..7]),
            (ALERT, &[FATAL, PROTOCOL_VERSION][..]),
            "{answer:?}"
        );
    }
    stop.cancel();
    task.await.unwrap().unwrap();
}

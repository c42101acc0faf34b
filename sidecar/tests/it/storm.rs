//! Many sidecars and one server that was away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sealpod_client::{Client, Credential, Fetched};
use sealpod_core::SecretText;
use sealpod_core::wire::bundle::BundleRequest;
use sealpod_sidecar::pace::{Pace, Timing};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

/// Answers so many questions at a time, and sends the others away as the api-server does.
#[derive(Clone)]
struct Server {
    busy: Arc<AtomicUsize>,
    capacity: usize,
    asked: Arc<Mutex<Vec<Instant>>>,
}

async fn bundle(State(server): State<Server>) -> Response {
    server.asked.lock().unwrap().push(Instant::now());
    if server.busy.fetch_add(1, Ordering::SeqCst) >= server.capacity {
        server.busy.fetch_sub(1, Ordering::SeqCst);
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "busy").into_response();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    server.busy.fetch_sub(1, Ordering::SeqCst);
    axum::Json(json!({"etag": "e", "next_change_at": null, "secrets": {}})).into_response()
}

/// What a pod's sidecar does until it has its first files: the client and the pace of the real one.
async fn first_files(url: String, seed: usize) -> (Instant, usize) {
    let client = Client::builder(url)
        .credential(Credential::ServiceAccount(SecretText::new(crate::fake::KEY)))
        .build()
        .unwrap();
    let mut pace = Pace::new(Timing::default(), &format!("pod-{seed}"));
    let mut answered = 0;
    loop {
        let org = client.org("default");
        let error = match org.bundle("shop", "prod", &BundleRequest::default(), None).await {
            Ok(Fetched::Bundle(_)) => return (Instant::now(), answered + 1),
            Ok(Fetched::NotModified) => panic!("nothing was asked that could be unchanged"),
            Err(error) => error,
        };
        answered += usize::from(!matches!(error, sealpod_client::Error::Unreachable { .. }));
        tokio::time::sleep(pace.failed(&error, true, Instant::now())).await;
    }
}

/// R10: two thousand pods have waited for the server. It is overrun by none of them, and all have their files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_waiting_pods_return_without_a_storm() {
    const PODS: usize = 2_000;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // A port that is taken and not listened on: refused, as by a Service without endpoints.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut pods = JoinSet::new();
    for seed in 0..PODS {
        pods.spawn(first_files(format!("http://{address}"), seed));
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let server = Server {
        busy: Arc::default(),
        capacity: 64,
        asked: Arc::default(),
    };
    let router = Router::new()
        .route("/api/orgs/{org}/projects/{project}/envs/{env}/bundle", get(bundle))
        .with_state(server.clone());
    let listener: TcpListener = socket.listen(4096).unwrap();
    let returned = Instant::now();
    let serving = tokio::spawn(axum::serve(listener, router).into_future());
    let mut times = Vec::new();
    let mut questions = 0;
    while let Some(done) = pods.join_next().await {
        let (at, asked) = done.unwrap();
        times.push(at.saturating_duration_since(returned));
        questions += asked;
    }
    serving.abort();
    times.sort_unstable();
    let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
    for at in server.asked.lock().unwrap().iter() {
        *seconds.entry(at.duration_since(returned).as_secs()).or_default() += 1;
    }
    println!(
        "times: median {:?}, last {:?}; questions by second: {seconds:?}",
        times[PODS / 2],
        times[PODS - 1]
    );
    assert_eq!(times.len(), PODS);
    assert!(questions < 4 * PODS, "{questions} questions of {PODS} pods");
    let most = seconds.values().max().copied().unwrap_or_default();
    assert!(most <= 2 * PODS, "{most} questions in one second");
}

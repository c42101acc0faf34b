//! Many sidecars and one server that was away.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    answered: Arc<AtomicUsize>,
}

async fn bundle(State(server): State<Server>) -> Response {
    if server.busy.fetch_add(1, Ordering::SeqCst) >= server.capacity {
        server.busy.fetch_sub(1, Ordering::SeqCst);
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "busy").into_response();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    server.answered.fetch_add(1, Ordering::SeqCst);
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
        answered: Arc::default(),
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
    let p99 = times[PODS * 99 / 100];
    println!(
        "times: median {:?}, 99 of 100 {p99:?}, last {:?}",
        times[PODS / 2],
        times[PODS - 1]
    );
    assert_eq!(times.len(), PODS);
    assert_eq!(server.answered.load(Ordering::SeqCst), PODS);
    assert!(questions < 4 * PODS, "{questions} questions of {PODS} pods");
    // Some seconds on an idle machine.
    assert!(p99 < Duration::from_secs(30), "{p99:?}");
}

/// What became of a fleet in a simulation: when each had its files behind the return, and the most questions of 100 ms.
struct Return {
    times: Vec<Duration>,
    peak: usize,
}

/// A fleet and its server, played through by a clock of its own, so that no load of the machine is in the figures. The
/// server answers `capacity` questions of 5 ms at a time and sends the others away for a second, as the api-server does;
/// before it returns it has answered 500 for as long as `failing`, and has then not been there at all for a minute.
fn play(pods: usize, waiting: bool, capacity: usize, failing: Duration) -> Return {
    let start = Instant::now();
    let (gone, back) = (start + failing, start + failing + Duration::from_mins(1));
    let failed = sealpod_client::Error::Unavailable {
        status: 500,
        code: None,
        retry_after: None,
    };
    let away = sealpod_client::Error::Unreachable {
        reason: "refused".to_owned(),
    };
    let busy = sealpod_client::Error::Unavailable {
        status: 503,
        code: None,
        retry_after: Some(Duration::from_secs(1)),
    };
    let mut paces: Vec<_> = (0..pods)
        .map(|pod| Pace::new(Timing::default(), &format!("pod-{pod}")))
        .collect();
    // All at once, as when the node group is started, or the server's connections break.
    let mut due: BTreeSet<_> = (0..pods).map(|pod| (start, pod)).collect();
    let mut answering = VecDeque::new();
    let mut asked = BTreeMap::<u128, usize>::new();
    let mut times = Vec::new();
    while let Some((now, pod)) = due.pop_first() {
        let error = if now < gone {
            &failed
        } else if now < back {
            &away
        } else {
            *asked.entry(now.duration_since(back).as_millis() / 100).or_default() += 1;
            while answering.front().is_some_and(|end| *end <= now) {
                answering.pop_front();
            }
            if answering.len() < capacity {
                let end = now + Duration::from_millis(5);
                answering.push_back(end);
                times.push(end - back);
                continue;
            }
            &busy
        };
        due.insert((now + paces[pod].failed(error, waiting, now), pod));
    }
    times.sort_unstable();
    Return {
        times,
        peak: asked.into_values().max().unwrap_or_default(),
    }
}

/// R10. Whatever came before, and however long: a server that has room for them has their files there within 3 s.
#[test]
fn pods_that_waited_have_their_files_within_three_seconds_of_the_servers_return() {
    for failing in [Duration::ZERO, Duration::from_mins(10)] {
        let fleet = play(2_000, true, 64, failing);
        let last = fleet.times[fleet.times.len() - 1];
        assert_eq!(fleet.times.len(), 2_000);
        assert!(
            last < Duration::from_secs(3),
            "failing {failing:?}: the last within {last:?}"
        );
    }
}

/// R10. Without jitter all come in one moment, and those that are sent away again so; without its reset, a running pod
/// would go on at the pace that the failures before the outage had earned.
#[test]
fn a_fleet_that_lost_its_server_comes_back_spread_and_soon() {
    const PODS: usize = 2_000;
    // Two seconds are what a waiting pod has to come back in, fifteen what a running one has.
    for (waiting, peak, soon) in [(true, PODS / 5, 6), (false, PODS / 5, 18)] {
        for failing in [Duration::ZERO, Duration::from_mins(1)] {
            let fleet = play(PODS, waiting, 4, failing);
            let p99 = fleet.times[PODS * 99 / 100];
            let what = format!(
                "waiting {waiting}, failing {failing:?}: 99 of 100 within {p99:?}, peak {}",
                fleet.peak
            );
            println!("{what}");
            assert_eq!(fleet.times.len(), PODS, "{what}");
            assert!(fleet.peak < peak, "{what}");
            assert!(p99 < Duration::from_secs(soon), "{what}");
        }
    }
}

//! More than a server can do: it refuses, quickly and in so many words, and goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use rusqlite::Connection;
use sealpod_api_server::limits::Bounds;
use sealpod_runtime::serve::{self, Limits};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::process::{Process, serve};
use crate::support::{ADMIN, Call, M, O, Reply, Server, limits};

/// What a request may take at most, whatever happens around it.
const TIME_LIMIT: Duration = Duration::from_secs(30);
const KIB: usize = 1024;

async fn bounded(requests: usize, woken: usize, bodies: usize) -> Server {
    let mut limits = limits();
    limits.work = Bounds {
        requests,
        waiting: 8,
        patience: Duration::from_millis(100),
        woken,
        bodies,
    };
    Server::limited(limits).await
}

/// Keeps the server from writing until it is dropped, for five seconds at most: whatever has to is worked on meanwhile.
fn hold(server: &Server) -> Connection {
    let other = Connection::open(server.dir().join("sealpod.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// 503 with a second to come back at.
async fn overloaded(call: Call) -> Reply {
    let reply = call.problem(503, "overloaded").await;
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    reply
}

#[tokio::test]
async fn beyond_its_bound_of_work_the_server_refuses_at_once_and_goes_on_when_there_is_room() {
    let server = bounded(8, 1, 1_000_000).await;
    server.application("shop").await;
    server.put("shop", "local", "db", "1").await;
    let path = format!("{O}/projects/shop/envs/local/secrets/db");
    let other = hold(&server);
    // Ten times too much: each of these reads has to be put on record.
    let mut reads = JoinSet::new();
    for _ in 0..80 {
        reads.spawn(tokio::time::timeout(TIME_LIMIT, server.admin("GET", &path).send()));
    }
    let mut answers = vec![];
    while answers.len() < 72 {
        answers.push(reads.join_next().await.unwrap().unwrap().unwrap());
    }
    assert!(answers.iter().all(|reply| reply.status == 503), "{answers:?}");
    // Before anything is looked at.
    overloaded(server.call("GET", M)).await;
    overloaded(server.admin("GET", M)).await;
    // Who asks how the server is does not hear that it has much to do.
    for probe in ["/health", "/livez", "/readyz"] {
        server.call("GET", probe).status(200).await;
    }
    drop(other);
    while let Some(admitted) = reads.join_next().await {
        assert_eq!(admitted.unwrap().unwrap().status, 200);
    }
    for _ in 0..10 {
        server.admin("GET", &path).status(200).await;
    }
}

#[tokio::test]
async fn who_waits_for_a_change_takes_no_place_and_is_not_refused_when_it_comes() {
    let server = bounded(2, 1, 1_000_000).await;
    server.application("shop").await;
    server.put("shop", "local", "db", "1").await;
    let path = format!("{O}/projects/shop/envs/local/bundle");
    let etag = server.admin("GET", &path).status(200).await.header("etag").to_owned();
    let changes = "/api/management/changes";
    let cursor = server.admin("GET", changes).status(200).await.text_at("cursor");
    let mut polls = JoinSet::new();
    for open in 0..10 {
        let poll = || match open {
            0..8 => server
                .admin("GET", &format!("{path}?wait=60"))
                .header("if-none-match", &etag),
            _ => server.admin("GET", &format!("{changes}?wait=60&since={cursor}")),
        };
        // The ones before it may still be on their way to wait, and have both places.
        let tries: Vec<_> = (0..200).map(|_| poll()).collect();
        polls.spawn(async {
            for poll in tries {
                let reply = poll.send().await;
                if reply.status != 503 {
                    return reply.status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            503
        });
        let begun = Instant::now();
        while server.store.stats().watchers <= open {
            assert!(begun.elapsed() < TIME_LIMIT, "poll {open} was not let in");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    // Ten wait, of a server that works on two.
    while server.admin("GET", M).send().await.status != 200 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while server.put("shop", "local", "db", "2").await.status == 503 {}
    while let Some(poll) = polls.join_next().await {
        assert_eq!(poll.unwrap(), 200);
    }
}

#[tokio::test]
async fn bodies_take_so_much_memory_and_small_ones_always_pass() {
    let server = bounded(100, 100, 128 * KIB).await;
    server.application("shop").await;
    let path = format!("{O}/projects/shop/envs/local/secrets");
    let value = json!({"value": "v".repeat(150 * KIB)}).to_string();
    // All of it but its end: two pieces, which are all there are.
    let mut slow = TcpStream::connect(server.url.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "PUT {path}/slow HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        value.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&value.as_bytes()[..value.len() - 1]).await.unwrap();
    let large = || {
        server
            .admin("PUT", &format!("{path}/large"))
            .body("application/json", value.clone())
    };
    let mut passed = 0;
    let refused = loop {
        match large().send().await {
            // The slow one is not here yet.
            reply if reply.status < 300 && passed < 200 => passed += 1,
            reply => break reply,
        }
    };
    assert_eq!(
        (refused.status, refused.body["code"].as_str()),
        (503, Some("overloaded")),
        "{}",
        refused.text
    );
    server.put("shop", "local", "small", "v").await;
    slow.write_all(b"}").await.unwrap();
    assert!(matches!(status(&mut slow).await, Some(200 | 201)));
    let stored = large().send().await;
    assert!(stored.status < 300, "{}", stored.text);
}

/// A server that speaks TLS with this many places for handshakes, and what its clients trust.
fn secure(handshakes: usize) -> (std::net::SocketAddr, TlsConnector, CancellationToken) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let config = sealpod_runtime::tls::server_config(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    let config = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config));
    let listener = serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let limits = Limits {
        handshakes,
        ..Limits::default()
    };
    let router = Router::new().route("/", get(|| async { "served" }));
    let drain = Duration::from_millis(100);
    tokio::spawn(serve::run_within(
        listener,
        Some(config),
        router,
        limits,
        stop.clone(),
        drain,
    ));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (address, TlsConnector::from(Arc::new(client)), stop)
}

#[tokio::test]
async fn many_handshakes_at_once_are_done_one_after_the_other_and_silent_peers_hold_nobody_up() {
    let (address, connector, stop) = secure(2);
    // They came first, and have both places.
    let mut silent = vec![];
    for _ in 0..4 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let connector = connector.clone();
        clients.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut stream = connector
                .connect("localhost".try_into().unwrap(), stream)
                .await
                .unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer
        });
    }
    // Less than the ten seconds that a silent peer's handshake may take.
    let soon = Duration::from_secs(8);
    while let Some(answer) = tokio::time::timeout(soon, clients.join_next()).await.unwrap() {
        let answer = answer.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("served"),
            "{answer}"
        );
    }
    // Their handshakes go on, if they want.
    let late = connector
        .connect("localhost".try_into().unwrap(), silent.remove(0))
        .await;
    late.unwrap();
    stop.cancel();
}

/// The most memory that a process has had, in MiB.
fn peak(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() / KIB
}

async fn connect(server: &Process, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(server.address.parse().unwrap()).await.unwrap()
}

/// The status of the answer that comes; none where the connection ends without one.
async fn status(connection: &mut TcpStream) -> Option<u16> {
    let mut start = [0; 12];
    let read = tokio::time::timeout(TIME_LIMIT, connection.read_exact(&mut start));
    read.await.expect("an answer within the time limit").ok()?;
    std::str::from_utf8(&start)
        .unwrap()
        .strip_prefix("HTTP/1.1 ")?
        .parse()
        .ok()
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n{more}\r\n")
}

/// Sends a body that does not end until something comes back.
async fn endless(mut connection: TcpStream, head: String) -> Option<u16> {
    connection.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = connection.split();
    let sending = async {
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(64 * KIB));
        while write.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut start = [0; 12];
    tokio::select! {
        () = sending => None,
        read = tokio::time::timeout(TIME_LIMIT, read.read_exact(&mut start)) => {
            read.expect("an answer within the time limit").ok()?;
            std::str::from_utf8(&start).unwrap().strip_prefix("HTTP/1.1 ")?.parse().ok()
        }
    }
}

/// Connections that are known and idle, before they all ask at once: half as many more as requests are worked on.
const IDLE: usize = 1_500;

/// Idle and slow connections, endless bodies and thousands of requests at a time.
#[tokio::test]
async fn a_flood_of_all_kinds_is_answered_and_leaves_memory_bounded() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let files = sealpod_runtime::process::open_files();
    assert!(
        files > 4_000,
        "this test needs 4,000 open files, and may have {files}: raise `ulimit -Hn`"
    );
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&mut serve(dir.path()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let plane = format!("http://{}{O}/projects", server.address);
    let made = client.post(&plane).bearer_auth(ADMIN).json(&json!({"name": "shop"}));
    assert_eq!(made.send().await.unwrap().status(), 201);
    let secret = format!("{O}/projects/shop/envs/prod/secrets/db");
    let put = client
        .put(format!("{plane}/shop/envs/prod/secrets/db"))
        .bearer_auth(ADMIN);
    assert!(
        put.json(&json!({"value": "v"}))
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let before = peak(&server);

    // 1. Idle ones of somebody who is known, and slow ones of somebody who is not.
    let mut idle = vec![];
    for _ in 0..IDLE / 30 {
        // Fewer at a time than a source may have before it is known.
        let mut group = vec![];
        for _ in 0..30 {
            let mut connection = connect(&server, "127.0.0.1").await;
            connection.write_all(head("GET", M, "").as_bytes()).await.unwrap();
            group.push(connection);
        }
        for connection in &mut group {
            assert_eq!(status(connection).await, Some(200));
        }
        idle.append(&mut group);
    }
    let mut slow = vec![];
    for _ in 0..200 {
        let mut connection = connect(&server, "127.0.0.2").await;
        // It may be closed already.
        let _ = connection.write_all(b"GET / HTTP/1.1\r\nx-slow: ").await;
        slow.push(connection);
    }
    // 2. Bodies of 100 MB, announced and not.
    let mut bodies = JoinSet::new();
    for _ in 0..16 {
        let mut announced = connect(&server, "127.0.0.1").await;
        let long = "content-type: application/json\r\ncontent-length: 100000000\r\n";
        let request = head("PUT", &secret, long);
        bodies.spawn(async move {
            announced.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(status(&mut announced).await, Some(413));
            None
        });
        let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
        bodies.spawn(endless(
            connect(&server, "127.0.0.1").await,
            head("PUT", &secret, chunked),
        ));
    }
    for answer in bodies.join_all().await.into_iter().flatten() {
        assert!(matches!(answer, 413 | 503), "{answer}");
    }
    // 3. More requests in one moment than are worked on at a time, and as many behind them.
    let mut reads = JoinSet::new();
    for connection in idle.drain(..) {
        let request = head("GET", &secret, "").repeat(2);
        reads.spawn(async move {
            let mut connection = connection;
            connection.write_all(request.as_bytes()).await.unwrap();
            let mut answers = String::new();
            let reading = async {
                while answers.matches("HTTP/1.1 200").count() + answers.matches("HTTP/1.1 503").count() < 2 {
                    let mut piece = [0; 4 * KIB];
                    let bytes = connection.read(&mut piece).await.unwrap();
                    assert!(bytes > 0, "{answers}");
                    answers.push_str(std::str::from_utf8(&piece[..bytes]).unwrap());
                }
            };
            tokio::time::timeout(TIME_LIMIT, reading)
                .await
                .expect("all are answered in time");
        });
    }
    reads.join_all().await;

    let read = client
        .get(format!("http://{}{secret}", server.address))
        .bearer_auth(ADMIN);
    assert_eq!(read.send().await.unwrap().status(), 200);
    let after = peak(&server);
    // What the chart gives a server.
    assert!(after < 256, "{before} MiB became {after}");
    // A server that stops gives a request that has begun to arrive its time, and slow ones with it.
    drop(slow);
    assert_eq!(server.stop().0, Some(0));
}

//! The path of the health port at which the start of an app waits.

use std::time::Duration;

use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::agent::{ask, port};
use crate::fake::{Fake, KEY, secrets};
use crate::pod::{Pod, Running, binding, eventually};

/// After that, what has not come does not come.
const LONG: Duration = Duration::from_secs(10);
/// Longer than the sidecar needs to answer, or to notice anything.
const SOON: Duration = Duration::from_millis(300);

async fn start(fake: &Fake, names: &[&str], file: &Value) -> (Pod, Running, u16) {
    let mut pod = Pod::with(&fake.url(), names, file);
    let port = port();
    pod.config.settings.health_port = Some(port);
    let running = pod.start(Until::Stopped);
    listening(port).await;
    (pod, running, port)
}

pub async fn listening(port: u16) {
    eventually("the health port", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
}

/// A request that waits, as the kubelet sends it.
pub async fn request(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request =
        b"GET /wait HTTP/1.1\r\nHost: pod\r\nUser-Agent: kube-probe/1.35\r\nAccept: */*\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

fn answer(stream: TcpStream) -> JoinHandle<String> {
    tokio::spawn(said(stream))
}

async fn said(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_answers_when_the_files_of_every_binding_are_there_and_not_before() {
    let fake = Fake::stopped(secrets([("canary", "1")]));
    let (pod, running, port) = start(&fake, &["db", "mail"], &binding(Value::Null)).await;
    pod.write_key("mail", "cr_sa_wrong", None, &binding(Value::Null));
    let first = answer(request(port).await);
    tokio::time::sleep(SOON).await;
    assert!(!first.is_finished(), "no file is there");
    fake.up();
    pod.shows("canary", Some("1")).await;
    tokio::time::sleep(SOON).await;
    assert!(
        !first.is_finished() && pod.is_open(),
        "the files of one binding are no more"
    );
    pod.write_key("mail", KEY, None, &binding(Value::Null));
    let first = first.await.unwrap();
    assert!(
        first.starts_with("HTTP/1.1 200") && first.ends_with("\r\n\r\nok\n"),
        "{first}"
    );
    assert!(sealpod_sidecar::handover::is_open(&pod.mount("mail")));
    assert!(!first.contains("canary") && !first.contains("mail"), "{first}");
    running.stop().await;
}

#[tokio::test]
async fn files_that_go_stale_behind_it_do_not_close_it() {
    let fake = Fake::start(secrets([("a", "1")]));
    let mut file = binding(Value::Null);
    file["staleness"] = json!({"then": "remove"});
    let (pod, running, port) = start(&fake, &["db"], &file).await;
    assert!(ask(port, "/wait").await.starts_with("HTTP/1.1 200"));
    fake.key("another");
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", None).await;
    crate::stale::readyz(port, 503, "db: ").await;
    assert!(
        ask(port, "/wait").await.starts_with("HTTP/1.1 200"),
        "it is about the first files"
    );
    running.stop().await;
}

#[tokio::test]
async fn few_wait_at_a_time_and_the_place_of_a_client_that_goes_is_free() {
    const FLOOD: usize = 40;
    const PLACES: usize = 8;
    let fake = Fake::stopped(secrets([]));
    let (_pod, running, port) = start(&fake, &["db"], &binding(Value::Null)).await;
    let mut waiting = JoinSet::new();
    for _ in 0..FLOOD {
        waiting.spawn(said(request(port).await));
    }
    for _ in PLACES..FLOOD {
        let refusal = tokio::time::timeout(LONG, waiting.join_next()).await;
        let refusal = refusal.expect("who is one too many is refused").unwrap().unwrap();
        assert!(
            refusal.starts_with("HTTP/1.1 503") && refusal.contains("too many"),
            "{refusal}"
        );
    }
    let another = tokio::time::timeout(SOON, waiting.join_next()).await;
    assert!(another.is_err(), "as many as there are places wait: {another:?}");
    assert!(ask(port, "/wait").await.starts_with("HTTP/1.1 503"), "none is left");
    assert!(
        ask(port, "/healthz").await.starts_with("HTTP/1.1 200"),
        "the others are answered"
    );
    drop(waiting);
    for _ in 0..100 {
        let next = answer(request(port).await);
        tokio::time::sleep(SOON / 6).await;
        if !next.is_finished() {
            assert!(running.stop().await);
            assert!(next.await.unwrap().starts_with("HTTP/1.1 503"));
            return;
        }
    }
    panic!("the places of clients that are gone stay taken");
}

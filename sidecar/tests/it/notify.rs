//! The app hears of a change: once, and only of what it uses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealpod_sidecar::agent::Until;
use sealpod_sidecar::pace::Timing;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::agent::{ask, port};
use crate::fake::{Fake, secrets};
use crate::pod::{Pod, TIMING, binding, eventually, questions, required};

/// An app that keeps the requests it gets, and answers each with the next of its statuses, the last for ever.
pub async fn app(statuses: &'static [u16]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            let count = {
                let mut kept = kept.lock().unwrap();
                kept.push(String::from_utf8(request[..read].to_vec()).unwrap());
                kept.len()
            };
            let status = statuses[(count - 1).min(statuses.len() - 1)];
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, seen)
}

pub fn calls(entries: Value, port: u16) -> Value {
    let mut file = binding(entries);
    file["onChange"] = json!({"http": {"port": port, "path": "/-/reload"}});
    file
}

#[tokio::test]
async fn a_change_is_told_once_with_retries_and_never_for_what_is_not_used() {
    let (app, told) = app(&[500, 503, 204]).await;
    let fake = Fake::start(secrets([("a", "1"), ("b", "1")]));
    let mut pod = Pod::with(&fake.url(), &["db"], &calls(json!([required("a")]), app));
    let health = port();
    pod.config.settings.health_port = Some(health);
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(told.lock().unwrap().is_empty(), "the first files are no change");
    // A new state that changes no file of this pod.
    fake.answer(secrets([("a", "1"), ("b", "2")]));
    questions(&fake, 1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(told.lock().unwrap().is_empty());
    fake.answer(secrets([("a", "2")]));
    eventually("three calls", || told.lock().unwrap().len() == 3).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let requests = told.lock().unwrap().clone();
    assert_eq!(requests.len(), 3, "two tries in vain, one that was heard");
    assert!(
        requests[0].starts_with("POST /-/reload HTTP/1.1\r\n"),
        "{}",
        requests[0]
    );
    let metrics = ask(health, "/metrics").await;
    assert!(
        metrics.contains(r#"sealpod_sidecar_notify_total{binding="db",result="told"} 1"#),
        "{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_to_a_port_of_the_node() {
    let (app, told) = app(&[200]).await;
    let fake = Fake::start(secrets([("a", "1")]));
    // Allowed with nothing to tell; the binding is edited under the pod.
    let mut pod = Pod::with(&fake.url(), &["db"], &binding(Value::Null));
    pod.config.settings.health_port = None;
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    pod.write_key("db", crate::fake::KEY, None, &calls(Value::Null, app));
    questions(&fake, 1).await;
    let mark = pod.mount("db").join("..sealpod-untold");
    for value in ["2", "3"] {
        fake.answer(secrets([("a", value)]));
        pod.shows("a", Some(value)).await;
        eventually("the news to be given up", || !mark.exists()).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(told.lock().unwrap().is_empty());
    assert!(running.is_running());
    running.stop().await;
}

#[tokio::test]
async fn a_burst_of_changes_is_one_piece_of_news() {
    let (app, told) = app(&[200]).await;
    let fake = Fake::start(secrets([("a", "0")]));
    let mut pod = Pod::with(&fake.url(), &["db"], &calls(Value::Null, app));
    pod.config.settings.health_port = Some(port());
    // However slow the machine is, the five are a burst.
    let timing = Timing {
        notify: sealpod_sidecar::notify::Timing {
            quiet: Duration::from_secs(2),
            latest: Duration::from_secs(30),
            ..TIMING.notify
        },
        ..TIMING
    };
    let running = pod.start_with(Until::Stopped, &timing);
    pod.shows("a", Some("0")).await;
    questions(&fake, 0).await;
    for round in 1..=5 {
        fake.answer(secrets([("a", &round.to_string())]));
        pod.shows("a", Some(&round.to_string())).await;
    }
    eventually("a call", || !told.lock().unwrap().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let count = told.lock().unwrap().len();
    assert_eq!(count, 1, "calls for 5 changes in a row");
    running.stop().await;
}

#[tokio::test]
async fn an_app_that_cannot_be_told_is_given_up_and_the_files_go_on() {
    let fake = Fake::start(secrets([("a", "1")]));
    let closed = port();
    let mut pod = Pod::with(&fake.url(), &["db"], &calls(Value::Null, closed));
    let health = port();
    pod.config.settings.health_port = Some(health);
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", Some("2")).await;
    let failed = r#"sealpod_sidecar_notify_total{binding="db",result="failed"} 1"#;
    for _ in 0..300 {
        if ask(health, "/metrics").await.contains(failed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ask(health, "/metrics").await.contains(failed));
    fake.answer(secrets([("a", "3")]));
    pod.shows("a", Some("3")).await;
    running.stop().await;
}

#[tokio::test]
async fn news_that_a_process_took_with_it_are_told_by_the_next_one_and_once() {
    // An app that does not know for as long as the first process is there.
    let (app, told) = app(&[500, 204]).await;
    let fake = Fake::start(secrets([("a", "1")]));
    let mut pod = Pod::with(&fake.url(), &["db"], &calls(Value::Null, app));
    pod.config.settings.health_port = Some(port());
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    eventually("the gate", || pod.is_open()).await;
    let timing = Timing {
        notify: sealpod_sidecar::notify::Timing {
            retry: Duration::from_mins(1),
            retry_cap: Duration::from_mins(1),
            give_up: Duration::from_hours(1),
            ..TIMING.notify
        },
        ..TIMING
    };
    running.stop().await;
    let mark = pod.mount("db").join("..sealpod-untold");
    let running = pod.start_with(Until::Stopped, &timing);
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", Some("2")).await;
    eventually("a call in vain", || told.lock().unwrap().len() == 1).await;
    assert!(mark.exists());
    running.stop().await;

    let running = pod.start(Until::Stopped);
    eventually("a call that is heard", || told.lock().unwrap().len() == 2).await;
    eventually("the mark to go", || !mark.exists()).await;
    // A state that changes nothing is no news, and leaves no mark.
    fake.answer(secrets([("a", "2")]));
    questions(&fake, 1).await;
    eventually("no mark", || !mark.exists()).await;
    running.stop().await;

    // An app that starts behind `init` reads the new files anyway.
    std::fs::write(&mark, "").unwrap();
    assert!(pod.init().await);
    assert!(!mark.exists());
    let running = pod.start(Until::Stopped);
    questions(&fake, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(told.lock().unwrap().len(), 2);
    running.stop().await;
}

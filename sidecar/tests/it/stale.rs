//! Files that nobody vouches for.

use std::time::Duration;

use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};

use crate::agent::{ask, port};
use crate::fake::{Fake, KEY, Manner, secrets};
use crate::pod::{Pod, Running, binding, eventually, questions, required};

fn stale(secrets: Value, max: Option<u64>, then: &str) -> Value {
    let mut file = binding(secrets);
    file["refreshInterval"] = json!(1);
    file["staleness"] = json!({"then": then});
    if let Some(max) = max {
        file["staleness"]["max"] = json!(max);
    }
    file
}

async fn start(fake: &Fake, file: &Value) -> (Pod, Running, u16) {
    let mut pod = Pod::with(&fake.url(), &["db"], file);
    let port = port();
    pod.config.settings.health_port = Some(port);
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    (pod, running, port)
}

/// Waits until `/readyz` answers with that status and a text that holds `said`.
pub async fn readyz(port: u16, status: u16, said: &str) {
    for _ in 0..600 {
        let answer = ask(port, "/readyz").await;
        if answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(said) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{status} {said:?} in vain: {}", ask(port, "/readyz").await);
}

#[tokio::test]
async fn files_that_grow_too_old_are_removed_and_come_back() {
    let fake = Fake::start(secrets([("a", "1")]));
    let (pod, running, port) = start(&fake, &stale(Value::Null, Some(2), "remove")).await;
    // An outage that is shorter changes nothing.
    fake.manner(Manner::Refusing(500, None));
    readyz(port, 200, "warning: db: no answer from the server").await;
    fake.manner(Manner::Proper);
    readyz(port, 200, "\r\n\r\nok\n").await;
    assert_eq!(pod.file("a").as_deref(), Some("1"));
    fake.down().await;
    pod.shows("a", None).await;
    assert!(!pod.is_open());
    readyz(port, 503, "nobody has confirmed the files for 2 s").await;
    assert!(
        ask(port, "/healthz").await.starts_with("HTTP/1.1 200"),
        "it is not restarted for that"
    );
    fake.up();
    pod.shows("a", Some("1")).await;
    readyz(port, 200, "ok").await;
    running.stop().await;
}

#[tokio::test]
async fn a_pod_whose_files_grow_too_old_can_be_taken_out_of_service() {
    let fake = Fake::start(secrets([("a", "1")]));
    let (pod, running, port) = start(&fake, &stale(Value::Null, Some(1), "unready")).await;
    fake.down().await;
    readyz(port, 503, "nobody has confirmed the files for 1 s").await;
    assert_eq!(pod.file("a").as_deref(), Some("1"), "the files stay");
    fake.up();
    readyz(port, 200, "ok").await;
    running.stop().await;
}

#[tokio::test]
async fn a_revoked_key_is_acted_on_at_once_and_told_apart_from_an_outage() {
    for (status, told, result) in [
        (401, "the server does not accept the credential", "unauthorized"),
        (403, "the server refuses this caller", "forbidden"),
    ] {
        let fake = Fake::start(secrets([("a", "1")]));
        let (pod, running, port) = start(&fake, &stale(Value::Null, None, "remove")).await;
        fake.manner(Manner::Refusing(status, None));
        readyz(port, 503, told).await;
        assert_eq!(pod.file("a"), None);
        let metrics = ask(port, "/metrics").await;
        let counted = format!(r#"sealpod_sidecar_fetch_total{{binding="db",result="{result}"}} "#);
        assert!(metrics.contains(&counted), "{metrics}");
        assert!(!metrics.contains(r#"result="away""#), "{metrics}");
        fake.manner(Manner::Proper);
        pod.shows("a", Some("1")).await;
        readyz(port, 200, "ok").await;
        running.stop().await;
    }
}

#[tokio::test]
async fn under_keep_nothing_is_removed_by_a_revoked_key() {
    let fake = Fake::start(secrets([("a", "1")]));
    let (pod, running, port) = start(&fake, &stale(Value::Null, Some(1), "keep")).await;
    fake.key("another");
    readyz(
        port,
        200,
        "warning: db: the server refuses: the server does not accept the credential",
    )
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pod.file("a").as_deref(), Some("1"));
    running.stop().await;
}

#[tokio::test]
async fn a_right_that_is_taken_away_takes_its_file_under_remove() {
    let entries = || json!([required("a"), required("b")]);
    let files = json!([{"path": "all.env", "values": {"format": "env"}}]);
    let mut partial = secrets([("a", "1")]);
    partial["denied"] = json!(["b"]);
    for (then, stays) in [("remove", false), ("unready", true)] {
        let fake = Fake::start(secrets([("a", "1"), ("b", "2")]));
        let mut file = stale(entries(), None, then);
        file["files"] = files.clone();
        let (pod, running, port) = start(&fake, &file).await;
        fake.answer(partial.clone());
        readyz(port, 503, "a required secret is refused").await;
        assert_eq!(
            (pod.file("a").as_deref(), pod.file("b").is_some()),
            (Some("1"), stays),
            "{then}"
        );
        assert_eq!(pod.file("all.env").is_some(), stays, "{then}");
        // It lasts as long as the answer does.
        questions(&fake, 2).await;
        readyz(port, 503, "a required secret is refused").await;
        fake.answer(secrets([("a", "1"), ("b", "2")]));
        readyz(port, 200, "ok").await;
        assert_eq!(pod.file("all.env").as_deref(), Some("A=1\nB=2\n"));
        running.stop().await;
    }
}

#[tokio::test]
async fn a_process_that_starts_anew_gives_nothing_up_before_it_has_asked() {
    let fake = Fake::start(secrets([("a", "1")]));
    let (pod, running, _) = start(&fake, &stale(Value::Null, Some(3600), "remove")).await;
    running.stop().await;
    // As if the node had slept for a day.
    let state = pod.mount("db").join("..sealpod-state");
    let data = pod.mount("db").join("..data");
    let long_ago = std::time::SystemTime::now() - Duration::from_hours(24);
    std::fs::File::options()
        .write(true)
        .open(state)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    std::fs::File::open(data).unwrap().set_modified(long_ago).unwrap();
    let running = pod.start(Until::Stopped);
    questions(&fake, 2).await;
    eventually("a fresh state", || pod.is_open()).await;
    assert_eq!(pod.file("a").as_deref(), Some("1"));
    pod.write_key("db", KEY, None, &binding(Value::Null));
    running.stop().await;
}

#[tokio::test]
async fn no_name_of_a_secret_is_told_on_the_open_port() {
    let entries = json!([required("a"), required("canary"), {"name": "canary-too", "optional": true}]);
    let fake = Fake::start(secrets([("a", "1"), ("canary", "2"), ("canary-too", "3")]));
    let (_pod, running, port) = start(&fake, &stale(entries, None, "keep")).await;
    let mut partial = secrets([("a", "1")]);
    partial["missing"] = json!(["canary"]);
    partial["denied"] = json!(["canary-too"]);
    fake.answer(partial);
    readyz(
        port,
        200,
        "warning: db: not as selected: 1 required without a value, 1 refused",
    )
    .await;
    let metrics = ask(port, "/metrics").await;
    assert!(
        metrics.contains(r#"sealpod_problem{part="db",state="warning"} 1"#),
        "{metrics}"
    );
    for answer in [ask(port, "/readyz").await, metrics] {
        assert!(!answer.contains("canary"), "{answer}");
    }
    // What the server says of a refusal may hold names as well: here it says "because".
    for status in [403, 404, 400] {
        fake.manner(Manner::Refusing(status, None));
        readyz(port, 200, "warning: db: the server refuses: ").await;
        let answer = ask(port, "/readyz").await;
        assert!(!answer.contains("because"), "{answer}");
        fake.manner(Manner::Proper);
        readyz(port, 200, "not as selected").await;
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_not_forgotten_by_a_restart() {
    let entries = || json!([required("a"), required("b")]);
    for (list, then, status, said) in [
        ("denied", "unready", 503, "a required secret is refused"),
        ("denied", "remove", 503, "a required secret is refused"),
        ("denied", "keep", 200, "warning: db: "),
        ("missing", "unready", 200, "warning: db: "),
    ] {
        let fake = Fake::start(secrets([("a", "1"), ("b", "2")]));
        let (pod, running, port) = start(&fake, &stale(entries(), None, then)).await;
        let mut partial = secrets([("a", "1")]);
        partial[list] = json!(["b"]);
        fake.answer(partial);
        readyz(port, status, said).await;
        running.stop().await;
        let asked = fake.seen().len();
        let running = pod.start(Until::Stopped);
        eventually("the first answer and the next question", || {
            fake.seen().len() >= asked + 2
        })
        .await;
        readyz(port, status, said).await;
        assert_eq!(fake.seen()[asked].etag, None, "\"nothing changed\" would not tell");
        running.stop().await;
        fake.down().await;
        if status == 503 {
            let running = pod.start(Until::Stopped);
            readyz(port, status, said).await;
            running.stop().await;
        }
    }
}

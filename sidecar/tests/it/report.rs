//! What the server hears of the pod.

use std::time::Duration;

use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};

use crate::fake::{Fake, secrets};
use crate::pod::{Pod, binding, eventually, required};

#[tokio::test]
async fn loaded_versions_are_reported_after_each_change_and_taken_back_at_the_stop() {
    let fake = Fake::start(secrets([("a", "canary"), ("b", "2")]));
    let pod = Pod::with(&fake.url(), &["db"], &binding(json!([required("a")])));
    assert!(pod.init().await);
    assert!(fake.reports().is_empty(), "init does not stay");
    let running = pod.start(Until::Stopped);
    eventually("a report", || fake.reports().len() == 1).await;
    let want = json!({
        "pod": "app-0", "namespace": "team", "node": "node", "versions": {"a": 1},
        "agent_version": env!("CARGO_PKG_VERSION"),
    });
    assert_eq!(fake.reports(), [want]);
    let mut next = secrets([("a", "new")]);
    next["secrets"]["a"]["version"] = json!(2);
    fake.answer(next.clone());
    eventually("another report", || fake.reports().len() == 2).await;
    assert_eq!(fake.reports()[1]["versions"], json!({"a": 2}));
    // A new state with the versions that are known already.
    fake.answer(next);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fake.reports().len(), 2);
    assert!(running.stop().await);
    assert_eq!(fake.reports().last(), Some(&Value::Null));
}

#[tokio::test]
async fn a_server_that_is_away_holds_no_stop_up() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    eventually("a report", || fake.reports().len() == 1).await;
    fake.down().await;
    let before = std::time::Instant::now();
    assert!(running.stop().await);
    assert!(before.elapsed() < Duration::from_secs(1));
}

//! How often the disk is waited for.

use std::time::Duration;

use serde_json::json;

use crate::process::{Process, serve};
use crate::shim::{Fault, Op, Shim};
use crate::support::{ADMIN, O};

/// Writes that are made one after the other.
const WRITES: i64 = 20;

async fn commits(server: &Process) -> i64 {
    let text = reqwest::get(format!("http://{}/metrics", server.probes)).await.unwrap();
    let text = text.text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("sealpod_store_commits_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_lone_write_is_one_commit_and_waits_for_the_disk_once_or_twice() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::new(dir.path());
    let server = Process::start(shim.over(&mut serve(dir.path())));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let plane = format!("http://{}{O}/projects", server.address);
    let made = client.post(&plane).bearer_auth(ADMIN).json(&json!({"name": "shop"}));
    assert_eq!(made.send().await.unwrap().status(), 201);

    // What a start does in the background is done.
    let mut before = commits(&server).await;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = commits(&server).await;
        if now == before {
            break;
        }
        before = now;
    }
    // None of them fails: they are counted.
    shim.fail(Op::Sync, "", i64::MAX, Fault::Broken);
    for n in 1..=WRITES {
        let put = client
            .put(format!("{plane}/shop/envs/prod/secrets/db"))
            .bearer_auth(ADMIN);
        let put = put.json(&json!({"value": format!("value {n}")})).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.status());
        // It is on the disk before it is answered, not some time later.
        let waited = shim.seen();
        assert!((n..=2 * n).contains(&waited), "{waited} waits for {n} writes");
    }
    let made = commits(&server).await - before;
    // One more at most: when accounts were used last is noted once a minute.
    assert!((WRITES..=WRITES + 1).contains(&made), "{made} commits");
}

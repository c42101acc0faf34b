//! How often the disk is waited for.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::process::{Process, serve};
use crate::support::{ADMIN, O};

/// Writes that are made one after the other.
const WRITES: usize = 20;

/// The server under `strace`, which writes each wait for the disk into this file; none where it may not, or is not there.
fn traced(directory: &Path, waits: &Path) -> Option<Command> {
    let probe = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    probe.ok().filter(std::process::ExitStatus::success)?;
    let server = serve(directory);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]);
    traced.arg(waits).arg(server.get_program()).args(server.get_args());
    traced
        .env_clear()
        .envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(traced)
}

fn count(waits: &Path) -> usize {
    // What another thread interrupts is told in two lines.
    let text = std::fs::read_to_string(waits).unwrap_or_default();
    text.lines().filter(|line| line.contains("sync(")).count()
}

async fn commits(server: &Process) -> u64 {
    let text = reqwest::get(format!("http://{}/metrics", server.probes)).await.unwrap();
    let text = text.text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("sealpod_store_commits_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_lone_write_is_one_commit_and_waits_for_the_disk_once_or_twice() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let waits = dir.path().join("waits");
    let traced = traced(dir.path(), &waits);
    let is_traced = traced.is_some();
    let server = Process::start(&mut traced.unwrap_or_else(|| serve(dir.path())));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let plane = format!("http://{}{O}/projects", server.address);
    let made = client.post(&plane).bearer_auth(ADMIN).json(&json!({"name": "shop"}));
    assert_eq!(made.send().await.unwrap().status(), 201);

    let before = (commits(&server).await, count(&waits));
    for n in 0..WRITES {
        let put = client
            .put(format!("{plane}/shop/envs/prod/secrets/db"))
            .bearer_auth(ADMIN);
        let put = put.json(&json!({"value": format!("value {n}")})).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.status());
        // It is on the disk before it is answered, not some time later.
        if is_traced {
            let waited = count(&waits) - before.1;
            assert!(
                (n + 1..=2 * (n + 1)).contains(&waited),
                "{waited} waits for {} writes",
                n + 1
            );
        }
    }
    let made = commits(&server).await - before.0;
    // One more at most: when accounts were used last is noted once a minute.
    assert!(
        (WRITES..=WRITES + 1).contains(&usize::try_from(made).unwrap()),
        "{made} commits"
    );
    // A tracer that is killed would leave the server running; one whose server ends, ends.
    if is_traced {
        let pid = std::fs::read_to_string(dir.path().join("sealpod.db.lock")).unwrap();
        assert!(
            Command::new("kill")
                .args(["-TERM", pid.trim()])
                .status()
                .unwrap()
                .success()
        );
        let mut server = server;
        assert!(server.child.wait().unwrap().success());
    } else {
        eprintln!("strace is not here, or not allowed: the waits of the disk themselves were not counted");
    }
}

//! A fault of the disk that a backup meets: of the database itself, and of the copy of it.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::backups::files;
use crate::process::{Process, serve};
use crate::retention::make_old;
use crate::shim::{Fault, Op, Shim};
use crate::support::{ADMIN, O};

fn start(dir: &Path, shim: &Shim) -> Process {
    let url = format!("file://{}", dir.join("backups").display());
    Process::start(shim.over(serve(dir).env("SEALPOD_BACKUP_URL", url)))
}

/// Values that are in the database's own file, or in its log.
async fn with_values(dir: &Path, shim: &Shim, in_log: bool) -> Process {
    let server = start(dir, shim);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let projects = format!("http://{}{O}/projects", server.address);
    let post = client.post(&projects).bearer_auth(ADMIN).json(&json!({"name": "shop"}));
    assert_eq!(post.send().await.unwrap().status(), 201);
    for n in 0..10 {
        let put = client
            .put(format!("{projects}/shop/envs/prod/secrets/key-{n}"))
            .bearer_auth(ADMIN);
        let put = put.json(&json!({"value": "v".repeat(50_000)}));
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    if in_log {
        return server;
    }
    assert_eq!(server.stop().0, Some(0));
    start(dir, shim)
}

async fn back_up(server: &Process) -> Option<u16> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = client
        .post(format!("http://{}/api/backups", server.address))
        .bearer_auth(ADMIN);
    post.send().await.ok().map(|answer| answer.status().as_u16())
}

/// What a backup leaves, but for what is kept of it.
fn left(dir: &Path) -> Vec<String> {
    let beside = files(dir)
        .into_iter()
        .filter(|name| name.starts_with(".sealpod-scratch-"));
    beside.chain(files(&dir.join("backups"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_never_opened_again_is_marked_and_goes_without_a_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let backups = dir.path().join("backups");
    std::fs::create_dir(&backups).unwrap();
    let shim = Shim::new(&backups);
    let server = start(dir.path(), &shim);
    // The server is killed when it begins to open it again.
    shim.fail(Op::Read, ".backup", 0, Fault::Kill);
    assert_eq!(back_up(&server).await, None);
    server.wait();
    let names = files(&backups);
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[1], format!("{}.json.partial", names[0]));
    for name in &names {
        make_old(&backups.join(name));
    }
    shim.heal();
    let server = start(dir.path(), &shim);
    for attempt in 0.. {
        let names = files(&backups);
        if names.is_empty() {
            break;
        }
        assert!(attempt < 300, "{names:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_read_for_a_backup_stops_the_server() {
    for (suffix, after) in [(".db", 0), (".db", 20), ("-wal", 0), ("-wal", 20)] {
        let what = format!("{suffix} behind {after}");
        let dir = tempfile::tempdir().unwrap();
        let shim = Shim::new(dir.path());
        let server = with_values(dir.path(), &shim, suffix == "-wal").await;
        shim.fail_once_in("backup", Op::Read, suffix, after);
        // It may be gone before it has answered.
        let answered = back_up(&server).await;
        assert!(matches!(answered, None | Some(500)), "{what}: {answered:?}");
        assert!(shim.seen() > after, "{what}: nothing failed");
        let ended = server.wait();
        assert_eq!(ended.code, Some(1), "{what}: {}", ended.log);
        let is_told = ended.log.contains("nothing is served from it until a restart");
        assert!(is_told, "{what}: {}", ended.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_written_fails_the_backup_alone() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::new(dir.path());
    let server = with_values(dir.path(), &shim, false).await;
    shim.fail_once_in("backup", Op::Write, "", 10);
    assert_eq!(back_up(&server).await, Some(500));
    assert!(shim.seen() > 10, "nothing failed");
    assert_eq!(left(dir.path()), [""; 0]);
    assert_eq!(back_up(&server).await, Some(201));
    assert_eq!(server.stop().0, Some(0));
}

//! A server that is stopped on a disk that fails.

use serde_json::json;

use crate::process::{Process, serve};
use crate::shim::{Fault, Op, Shim};
use crate::support::{ADMIN, O};

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_disk_in_the_last_copy_of_the_log_is_told_by_the_exit_code_and_loses_nothing() {
    for op in [Op::Write, Op::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let shim = Shim::new(dir.path());
        let server = Process::start(shim.over(&mut serve(dir.path())));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let projects = |server: &Process| format!("http://{}{O}/projects", server.address);
        let post = client.post(projects(&server)).bearer_auth(ADMIN);
        assert_eq!(post.json(&json!({"name": "shop"})).send().await.unwrap().status(), 201);
        // Too little is written for a copy before.
        shim.fail(op, ".db", 0, Fault::Broken);
        server.signal();
        let ended = server.wait();
        assert!(shim.seen() > 0, "{op:?}: nothing failed");
        assert_eq!(ended.code, Some(1), "{op:?}: {}", ended.log);
        assert!(ended.log.contains("disk I/O error"), "{op:?}: {}", ended.log);

        shim.heal();
        let server = Process::start(&mut serve(dir.path()));
        let get = client.get(format!("{}/shop", projects(&server))).bearer_auth(ADMIN);
        assert_eq!(get.send().await.unwrap().status(), 200, "{op:?}");
    }
}

//! Values that are to be read while nothing can be put on record.

use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use crate::process::{Process, maintain, serve, text};
use crate::support::{ADMIN, O, Server};

const VALUE: &str = "canary-7f3c";

#[tokio::test]
async fn no_value_is_given_out_whose_reading_cannot_be_put_on_record() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    server.put("shop", "local", "db", VALUE).await;
    let reader = server.account("reader", &[["shop", "local", "*", "read"]]).await;
    let env = format!("{O}/projects/shop/envs/local");
    let etag = server.call("GET", &format!("{env}/bundle")).key(&reader.key);
    let etag = etag.status(200).await.header("etag").to_owned();
    let reads = || {
        [
            app.consumer("/secrets/db?environment=local"),
            server.admin("GET", &format!("{env}/secrets/db")),
            server.call("GET", &format!("{env}/secrets/db")).key(&reader.key),
            server.call("GET", &format!("{env}/bundle")).key(&reader.key),
            server
                .call("POST", &format!("{env}/bundle"))
                .key(&reader.key)
                .json(json!({"key": ["db"]})),
            server
                .call("GET", &format!("{env}/bundle?wait=5"))
                .key(&reader.key)
                .header("if-none-match", "\"another\""),
        ]
    };
    for read in reads() {
        assert!(read.status(200).await.text.contains(VALUE), "the test reads no value");
    }

    let other = Connection::open(server.dir().join("sealpod.db")).unwrap();
    other.busy_timeout(Duration::from_secs(5)).unwrap();
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT raise(ABORT, 'broken'); END";
    other.execute_batch(broken).unwrap();
    for read in reads() {
        let reply = read.problem(503, "unavailable").await;
        assert!(
            !reply.text.contains(VALUE) && !reply.text.contains("broken"),
            "{}",
            reply.text
        );
        assert!(!reply.header("retry-after").is_empty());
    }
    assert!(server.store.trouble().audit.is_some(), "the readiness probe says so");
    // What gives nothing out needs no entry.
    let known = server.call("GET", &format!("{env}/bundle")).key(&reader.key);
    known.header("if-none-match", &etag).status(304).await;

    other.execute_batch("DROP TRIGGER broken").unwrap();
    for read in reads() {
        assert!(read.status(200).await.text.contains(VALUE));
    }
    assert!(server.store.trouble().is_none());
}

/// A disk that fails at some point: no file may grow beyond 2 MiB, which the write-ahead log does before it is copied.
fn failing(server: &Command) -> Command {
    let mut failing = Command::new("sh");
    failing.args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""]);
    failing.arg(server.get_program()).args(server.get_args());
    failing
        .env_clear()
        .envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    failing
}

#[tokio::test]
async fn a_disk_that_fails_under_the_log_ends_the_server_before_it_gives_anything_out() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::start(&mut failing(&serve(dir.path())));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let plane = format!("http://{}{O}/projects", server.address);
    let made = client.post(&plane).bearer_auth(ADMIN).json(&json!({"name": "shop"}));
    assert_eq!(made.send().await.unwrap().status(), 201);
    let secret = format!("{plane}/shop/envs/prod/secrets/db");
    let put = client.put(&secret).bearer_auth(ADMIN).json(&json!({"value": VALUE}));
    assert!(put.send().await.unwrap().status().is_success());

    let mut answered = 0;
    let refused = loop {
        assert!(answered < 2_000, "the log never met its limit");
        let read = client
            .get(&secret)
            .bearer_auth(ADMIN)
            .header("x-request-id", format!("r-{answered}"));
        // The server may be gone before its answer is out.
        let Ok(response) = read.send().await else { break None };
        if response.status() != 200 {
            break Some((response.status().as_u16(), response.text().await.unwrap_or_default()));
        }
        assert!(response.text().await.unwrap().contains(VALUE));
        answered += 1;
    };
    if let Some((status, text)) = refused {
        assert_eq!(status, 503, "{text}");
        assert!(!text.contains(VALUE), "{text}");
    }
    let log = server.log.take().unwrap();
    assert_eq!(
        server.child.wait().unwrap().code(),
        Some(1),
        "it stops, and says that it failed"
    );
    let log = log.join().unwrap();
    assert!(log.contains("disk I/O error") && !log.contains(VALUE), "{log}");

    let export = maintain(dir.path(), &["audit", "export", "--organization", "default"]);
    let entries = text(&export.stdout);
    for n in 0..answered {
        assert!(entries.contains(&format!("\"r-{n}\"")), "answer {n} is not on record");
    }
    assert!(maintain(dir.path(), &["audit", "verify"]).status.success());
}

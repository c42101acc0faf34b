//! A disk that answers with errors: the server stops before it says that anything is stored which may not be.

use serde_json::json;

use crate::process::{Ended, Process, maintain, serve, text};
use crate::shim::{Fault, Op, Shim, rounds};
use crate::support::{ADMIN, O};
use crate::volume::Volume;

/// Each fault comes behind so many threes of calls that go well at most: no test makes any number of them.
const AFTER: usize = 20;

/// What callers were told is stored: the newest number.
struct Told {
    versions: usize,
    /// Of the reads that were answered.
    reads: usize,
}

/// Writes and reads one secret, by turns, until the server is gone. `faults` begin once it is there.
async fn use_up(server: &Process, begin: impl FnOnce()) -> Told {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let projects = format!("http://{}{O}/projects", server.address);
    let post = client.post(&projects).bearer_auth(ADMIN).json(&json!({"name": "shop"}));
    assert_eq!(post.send().await.unwrap().status(), 201);
    let secret = format!("{projects}/shop/envs/prod/secrets/db");
    let mut told = Told { versions: 0, reads: 0 };
    begin();
    for n in 1..5_000 {
        // The log is copied into the database every 4 MiB.
        let value = format!("{n} {}", "v".repeat(100_000));
        let put = client.put(&secret).bearer_auth(ADMIN).json(&json!({"value": value}));
        let Ok(answer) = put.send().await else { return told };
        match answer.status().as_u16() {
            200 | 201 => told.versions = n,
            503 => {
                let body = answer.text().await.unwrap_or_default();
                assert!(body.contains("unavailable") || body.is_empty(), "{body}");
                return told;
            }
            other => panic!("{other}"),
        }
        let get = client
            .get(&secret)
            .bearer_auth(ADMIN)
            .header("x-request-id", format!("read-{n}"));
        let Ok(answer) = get.send().await else { return told };
        match answer.status().as_u16() {
            200 => {
                if let Ok(body) = answer.text().await {
                    assert!(body.contains(&format!("\"{n} v")), "another value");
                    told.reads = n;
                }
            }
            503 => return told,
            other => panic!("{other}"),
        }
    }
    panic!("the fault was never met");
}

/// Somebody else who reads the database, and goes on doing so.
fn reader(dir: &std::path::Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(dir.join("sealpod.db")).unwrap();
    connection.execute_batch("BEGIN; SELECT count(*) FROM meta").unwrap();
    connection
}

/// The server said so and is gone; what it had told anybody is there when the disk is good again.
fn check(dir: &std::path::Path, told: &Told, ended: &Ended, words: &[&str], what: &str) {
    assert_eq!(ended.code, Some(1), "{what}: {}", ended.log);
    assert!(
        words.iter().any(|words| ended.log.contains(words))
            && ended.log.contains("nothing is served from it until a restart"),
        "{what}: {}",
        ended.log
    );
    let export = maintain(dir, &["audit", "export", "--organization", "default"]);
    assert!(export.status.success(), "{what}: {}", text(&export.stderr));
    let entries = text(&export.stdout);
    for n in 1..=told.reads {
        assert!(
            entries.contains(&format!("\"read-{n}\"")),
            "{what}: read {n} is not on record"
        );
    }
    assert!(maintain(dir, &["audit", "verify"]).status.success(), "{what}");
    let connection = rusqlite::Connection::open(dir.join("sealpod.db")).unwrap();
    let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let kept = usize::try_from(one("SELECT count(*) FROM versions")).unwrap();
    // What was not answered may be there or not.
    assert!(
        kept == told.versions || kept == told.versions + 1,
        "{what}: {kept} of {}",
        told.versions
    );
    assert_eq!(
        one("SELECT coalesce(max(number), 0) - count(*) FROM versions"),
        0,
        "{what}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_disk_stops_the_server_and_nothing_that_was_answered_is_lost() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let faults = [
        (Op::Write, "-wal"),
        (Op::Sync, "-wal"),
        // At a checkpoint.
        (Op::Write, ".db"),
        (Op::Sync, ".db"),
        (Op::Read, "-wal"),
        (Op::Read, ".db"),
        (Op::Write, "-shm"),
    ];
    for n in 0..rounds(1) {
        for (op, suffix) in faults {
            let after = i64::try_from(n % AFTER).unwrap() * 3;
            let what = format!("{op:?} of {suffix} behind {after}");
            let dir = tempfile::tempdir().unwrap();
            let shim = Shim::new(dir.path());
            let server = Process::start(shim.over(&mut serve(dir.path())));
            // Behind somebody who reads the log grows, and with it the memory that is shared.
            let reader = (suffix == "-shm").then(|| reader(dir.path()));
            let told = use_up(&server, || shim.fail(op, suffix, after, Fault::Broken)).await;
            drop(reader);
            assert!(shim.seen() > after, "{what}: nothing failed");
            // What cannot be read is damage to SQLite.
            let words = ["disk I/O error", "malformed"];
            check(dir.path(), &told, &server.wait(), &words, &what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_once_beside_the_writer_stops_the_server_and_is_not_tried_again() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for (op, after) in [(Op::Sync, 0), (Op::Sync, 2), (Op::Write, 700)] {
        let what = format!("{op:?} behind {after}");
        let dir = tempfile::tempdir().unwrap();
        let shim = Shim::new(dir.path());
        let server = Process::start(shim.over(&mut serve(dir.path())));
        let told = use_up(&server, || shim.fail_once_in("store-log", op, ".db", after)).await;
        let ended = server.wait();
        assert_eq!((shim.seen(), shim.behind()), (after + 1, 0), "{what}: somebody went on");
        check(dir.path(), &told, &ended, &["disk I/O error"], &what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_while_the_server_starts_ends_it_with_the_reason() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for (op, suffix, after) in [
        (Op::Sync, "-wal", 0),
        (Op::Write, "-wal", 2),
        (Op::Write, ".db", 0),
        (Op::Write, "-shm", 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let shim = Shim::new(dir.path());
        shim.fail(op, suffix, after, Fault::Broken);
        let ended = Process::try_start(shim.over(&mut serve(dir.path()))).err();
        let ended = ended.unwrap_or_else(|| panic!("it started: {op:?} of {suffix}"));
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("disk I/O error"), "{}", ended.log);
        // Nothing is left of it that would stand in the way.
        shim.heal();
        drop(Process::start(&mut serve(dir.path())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_becomes_read_only_stops_the_server_and_it_serves_again_once_that_is_over() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let volume = Volume::new(96);
    let dir = volume.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    let shim = Shim::new(&dir);
    let server = Process::start(shim.over(&mut serve(&dir)));
    let mut for_real = false;
    let told = use_up(&server, || {
        for_real = volume.become_read_only();
        if !for_real {
            eprintln!("this file system cannot be made read-only under a server; its calls fail as if it were");
            shim.fail(Op::Write, "-wal", 0, Fault::ReadOnly);
        }
    })
    .await;
    let ended = server.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("nothing is served from it until a restart"),
        "{}",
        ended.log
    );
    if for_real {
        let ended = Process::try_start(&mut serve(&dir))
            .err()
            .expect("it started on a disk that takes nothing");
        assert!(ended.log.contains("Read-only file system"), "{}", ended.log);
    }
    assert_eq!(told.versions, 0, "what cannot be stored was answered");
}

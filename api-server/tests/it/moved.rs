//! A database that is taken from under a running server.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::process::{Process, maintain, serve, text};
use crate::rotation::Running;
use crate::shim::{Fault, Op, Shim};
use crate::support::O;

/// What is left of a server that has ended by itself.
struct Left {
    dir: tempfile::TempDir,
    log: String,
    /// Everything that it answered as stored.
    values: BTreeMap<String, String>,
}

impl Left {
    /// It starts again, and has all of that.
    async fn has_everything(&self) {
        Running::start(self.dir.path()).check(&self.values).await;
        let verified = maintain(self.dir.path(), &["audit", "verify"]);
        assert!(verified.status.success(), "{}", text(&verified.stderr));
    }
}

/// Lets somebody do this to the files of a server.
async fn ended_behind(take: impl FnOnce(&Path)) -> Left {
    ended_behind_with(tempfile::tempdir().unwrap(), None, take).await
}

async fn ended_behind_with(dir: tempfile::TempDir, shim: Option<&Shim>, take: impl FnOnce(&Path)) -> Left {
    let server = shim.map_or_else(
        || Running::start(dir.path()),
        |shim| Running::of(shim.over(&mut serve(dir.path()))),
    );
    let mut values = server.fill().await;
    let url = format!("file://{}", dir.path().join("backups").display());
    let made = maintain(dir.path(), &["backup", "create", "--backup-url", &url]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    take(dir.path());
    // Nobody has found out yet, or somebody has.
    let late = format!("{O}/projects/shop/envs/local/secrets/late");
    if server.call("PUT", &late, Some(json!({"value": "late"}))).await.0 < 300 {
        values.insert("late".to_owned(), "late".to_owned());
    }
    let ended = server.process.wait();
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("nothing is served from it until a restart"),
        "{}",
        ended.log
    );
    Left {
        dir,
        log: ended.log,
        values,
    }
}

fn rename(dir: &Path, from: &str, to: &str) {
    std::fs::rename(dir.join(from), dir.join(to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_moved_away_under_a_server_stops_it_and_has_everything_when_it_is_back() {
    let left = ended_behind(|dir| rename(dir, "sealpod.db", "elsewhere")).await;
    assert!(
        left.log.contains("sealpod.db was moved away or replaced"),
        "{}",
        left.log
    );
    // What was answered is in the file and the log beside it, and a start without the file leaves that alone.
    let dir = left.dir.path();
    let refused = Process::try_start(&mut serve(dir)).err().expect("it started");
    assert!(
        refused.log.contains("with changes that are nowhere else"),
        "{}",
        refused.log
    );
    rename(dir, "elsewhere", "sealpod.db");
    left.has_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_replaced_under_a_server_stops_it_and_has_everything_when_it_is_back() {
    let left = ended_behind(|dir| {
        std::fs::copy(dir.join("sealpod.db"), dir.join("other.db")).unwrap();
        rename(dir, "sealpod.db", "elsewhere");
        rename(dir, "other.db", "sealpod.db");
    })
    .await;
    assert!(
        left.log.contains("sealpod.db was moved away or replaced"),
        "{}",
        left.log
    );
    rename(left.dir.path(), "elsewhere", "sealpod.db");
    left.has_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_taken_away_under_a_server_stops_it_and_the_database_has_everything() {
    let left = ended_behind(|dir| {
        assert!(dir.join("sealpod.db-wal").metadata().unwrap().len() > 0);
        std::fs::remove_file(dir.join("sealpod.db-wal")).unwrap();
    })
    .await;
    let log = &left.log;
    assert!(log.contains("sealpod.db-wal was moved away or replaced"), "{log}");
    assert!(
        log.contains("everything that") && log.contains("sealpod.db now"),
        "{log}"
    );
    left.has_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_replaced_under_a_server_does_not_come_over_the_database() {
    let left = ended_behind(|dir| {
        rename(dir, "sealpod.db-wal", "elsewhere");
        // As it was then: it would be taken for its own.
        std::fs::copy(dir.join("elsewhere"), dir.join("sealpod.db-wal")).unwrap();
    })
    .await;
    let (dir, log) = (left.dir.path(), &left.log);
    assert!(log.contains("sealpod.db-wal was moved away or replaced"), "{log}");
    assert!(
        log.contains("was moved to") && dir.join("sealpod.db-wal.other").exists(),
        "{log}"
    );
    // Nothing that is worth anything is in the one that it had.
    assert_eq!(dir.join("elsewhere").metadata().unwrap().len(), 0);
    left.has_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_log_left_behind_keeps_nothing_foreign_in_its_place() {
    let earlier = b"of an earlier time";
    let left = ended_behind(|dir| {
        std::fs::write(dir.join("sealpod.db-wal.other"), earlier).unwrap();
        rename(dir, "sealpod.db-wal", "elsewhere");
        std::fs::copy(dir.join("elsewhere"), dir.join("sealpod.db-wal")).unwrap();
    })
    .await;
    assert!(left.log.contains("was moved to"), "{}", left.log);
    let dir = left.dir.path();
    assert!(std::fs::read(dir.join("sealpod.db-wal.other")).unwrap() == earlier);
    let names = crate::backups::files(dir);
    let others = names.iter().filter(|name| name.starts_with("sealpod.db-wal.other"));
    assert_eq!(others.count(), 2, "{names:?}");
    left.has_everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_lost_and_cannot_be_copied_keeps_the_database_from_being_started_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::new(dir.path());
    let left = ended_behind_with(dir, Some(&shim), |dir| {
        rename(dir, "sealpod.db-wal", "elsewhere");
        // Nothing is written there before the end.
        shim.fail(Op::Write, "sealpod.db", 0, Fault::Broken);
    })
    .await;
    let (dir, log) = (left.dir.path(), &left.log);
    assert!(log.contains("sealpod.db-wal could not be saved"), "{log}");
    // As its supervisor does it, also once the file is back: it is for somebody to say so.
    let content = |name: &str| std::fs::read(dir.join(name)).ok();
    let before = (content("sealpod.db"), content("elsewhere"));
    for _ in 0..2 {
        let refused = Process::try_start(&mut serve(dir)).err().expect("it started").log;
        assert!(
            refused.contains("put that file back under its name") && refused.contains("remove "),
            "{refused}"
        );
        let copied = maintain(dir, &["backup", "create", "--backup-url", "file:///nowhere"]);
        assert!(!copied.status.success());
    }
    assert!(
        (content("sealpod.db"), content("elsewhere")) == before,
        "something was written"
    );
    assert!(content("sealpod.db-wal").is_none());
    rename(dir, "elsewhere", "sealpod.db-wal");
    let page = include_str!("../../../docs/OPERATIONS.md");
    assert!(page.contains("`sealpod.db.lost-log`"));
    std::fs::remove_file(dir.join("sealpod.db.lost-log")).unwrap();
    left.has_everything().await;
}

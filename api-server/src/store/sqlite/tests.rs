//! What the engine does with the transaction that changes share; the use cases are tested from outside.

use std::sync::Arc;
use std::time::Duration;

use sealpod_core::Time;
use tempfile::TempDir;

use super::super::{Options, State, StoreError, Topic};
use super::*;
use crate::audit::{By, Chain, Entry, Kind, Verb};
use crate::ids::EnvironmentId;

const MASTER_KEY: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn engine() -> (Arc<Engine>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::parse(MASTER_KEY).unwrap();
    let engine = Engine::open(&Options::new(folder.path().join("sealpod.db")), &keyring).unwrap();
    (Arc::new(engine), folder)
}

fn put(tx: &Tx<'_>, name: &str) -> Result<()> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, x'00')";
    tx.conn.prepare_cached(sql)?.execute([name])?;
    let entry = Entry::new(Kind::Key, Verb::Set).resource(None, name);
    tx.audit(Chain::Instance, entry, &By::system("test"))
}

async fn names(engine: &Engine) -> Vec<String> {
    let read = engine.read(|view| {
        let sql = "SELECT name FROM meta WHERE name LIKE 'test%' ORDER BY name";
        let mut statement = view.conn.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<Vec<String>>>()?)
    });
    read.await.unwrap()
}

/// Holds the writer until the returned sender is dropped, so that what comes behind it shares one transaction.
fn hold(engine: &Arc<Engine>) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (started, running) = std::sync::mpsc::channel();
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        let wait = engine.write(move |_| {
            started.send(()).ok();
            held.recv().ok();
            // Longer than a transaction goes on taking more, so that the others get one of their own.
            std::thread::sleep(Duration::from_millis(30));
            Ok(())
        });
        wait.await.unwrap();
    });
    running.recv().unwrap();
    release
}

/// Runs these together, in one transaction.
async fn together(engine: &Arc<Engine>, jobs: Vec<fn(&Tx<'_>) -> Result<()>>) -> Vec<Result<()>> {
    let release = hold(engine);
    let mut tasks = Vec::new();
    for (before, job) in jobs.into_iter().enumerate() {
        let own = Arc::clone(engine);
        tasks.push(tokio::spawn(async move { own.write(job).await }));
        // So that they wait in this order.
        while engine.writes.len() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(release);
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_share_one_commit() {
    let (engine, _folder) = engine();
    let before = engine.stats();
    let jobs: Vec<fn(&Tx<'_>) -> Result<()>> = vec![
        |tx| put(tx, "test-0"),
        |tx| put(tx, "test-1"),
        |tx| put(tx, "test-2"),
        |tx| put(tx, "test-3"),
    ];
    assert!(together(&engine, jobs).await.iter().all(Result::is_ok));
    let after = engine.stats();
    assert_eq!(after.writes - before.writes, 5);
    assert_eq!(
        after.commits - before.commits,
        2,
        "the one that was held, and the four behind it"
    );
    assert_eq!(names(&engine).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_or_panics_leaves_its_neighbours_alone() {
    let (engine, _folder) = engine();
    let results = together(
        &engine,
        vec![
            |tx| put(tx, "test-a"),
            |tx| {
                put(tx, "test-b")?;
                Err(StoreError::Busy)
            },
            |tx| {
                put(tx, "test-c")?;
                panic!("a defect")
            },
            |tx| put(tx, "test-a"),
            |tx| put(tx, "test-d"),
        ],
    );
    let results = results.await;
    assert_eq!(results[0], Ok(()));
    assert_eq!(results[1], Err(StoreError::Busy));
    assert!(matches!(&results[2], Err(StoreError::Internal(text)) if text.contains("panicked")));
    assert!(matches!(&results[3], Err(StoreError::Internal(text)) if text.contains("UNIQUE")));
    assert_eq!(results[4], Ok(()));
    assert_eq!(names(&engine).await, ["test-a", "test-d"]);
    let key = engine.audit_key().clone();
    let report = engine.read(move |view| log::verify(view.conn, &key)).await.unwrap();
    assert!(report.is_intact());
    assert_eq!(report.chains[0].entries, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_change_waits_for_nobody() {
    let (engine, _folder) = engine();
    let began = std::time::Instant::now();
    for n in 0..10 {
        engine.write(move |tx| put(tx, &format!("test-{n}"))).await.unwrap();
    }
    assert_eq!(engine.stats().commits, 10);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stores_nothing_and_heals() {
    let (engine, _folder) = engine();
    engine.write(|tx| put(tx, "test-before")).await.unwrap();
    let limit = |pages: i64| {
        engine.write(move |tx| {
            tx.conn
                .pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))?;
            Ok(())
        })
    };
    limit(1).await.unwrap();
    let fill = |tx: &Tx<'_>| {
        put(tx, "test-full")?;
        tx.conn.execute(
            "INSERT INTO meta (name, value) VALUES ('test-big', zeroblob(1000000))",
            [],
        )?;
        Ok(())
    };
    assert_eq!(engine.write(fill).await, Err(StoreError::DiskFull));
    assert_eq!(engine.trouble().commit, Some(StoreError::DiskFull));
    assert_eq!(names(&engine).await, ["test-before"]);
    assert_eq!(engine.state(), State::Serving);
    limit(1_000_000).await.unwrap();
    engine.write(fill).await.unwrap();
    assert!(engine.trouble().is_none());
    assert_eq!(names(&engine).await, ["test-before", "test-big", "test-full"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_removed_also_while_the_reserve_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path().join("sealpod.db"));
    options.reserve = true;
    let engine = Engine::open(&options, &Keyring::parse(MASTER_KEY).unwrap()).unwrap();
    let ended = "INSERT INTO users (id, email, created_at) VALUES (zeroblob(16), 'a@example.com', 0);
        INSERT INTO sessions (id, user_id, digest, created_at, expires_at)
            VALUES (zeroblob(16), zeroblob(16), zeroblob(32), 0, 1);
        INSERT INTO idempotency (scope, fingerprint, attempt, created_at)
            VALUES (zeroblob(32), zeroblob(32), zeroblob(16), 1);";
    engine.write(move |tx| Ok(tx.conn.execute_batch(ended)?)).await.unwrap();
    assert!(engine.health.reserve.give_up());
    assert_eq!(
        engine.write(|tx| put(tx, "test-change")).await,
        Err(StoreError::DiskFull)
    );
    assert_eq!(engine.write(|tx| clock::purge(tx, Time::now(), 10)).await, Ok(1));
    assert_eq!(
        engine.write_values(|tx| idempotency::forget(tx, Time::now(), 10)).await,
        Ok(1)
    );
    // The note that a request was done takes room.
    let claiming = |tx: &Tx<'_>| {
        let claim = crate::idempotency::Claim {
            scope: [1; 32],
            fingerprint: [1; 32],
            attempt: Uuid::nil(),
        };
        idempotency::claim(tx, &claim, None)
    };
    assert_eq!(engine.write(claiming).await, Err(StoreError::DiskFull));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_that_takes_no_entry_is_tried_again_and_keeps_none_of_the_trials() {
    let (engine, _folder) = engine();
    let run = |sql: &'static str| engine.write(move |tx| Ok(tx.conn.execute_batch(sql)?));
    let record = || {
        let entry = Entry::new(Kind::Key, Verb::Rotate);
        engine.write(|tx| tx.audit(Chain::Instance, entry, &By::system("test")))
    };
    run("CREATE TEMP TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT raise(ABORT, 'broken'); END")
        .await
        .unwrap();
    record().await.unwrap_err();
    engine.write(health::try_out).await.unwrap();
    let trouble = engine.trouble();
    assert!(trouble.audit.unwrap().to_string().contains("broken") && trouble.commit.is_none());

    run("DROP TRIGGER broken").await.unwrap();
    engine.write(health::try_out).await.unwrap();
    assert!(engine.trouble().is_none());
    record().await.unwrap();
    let count = |view: &View<'_>| {
        let sql = "SELECT count(*), max(seq) FROM audit_entries";
        let figures = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        Ok(view.conn.query_row(sql, [], figures)?)
    };
    assert_eq!(engine.read(count).await.unwrap(), (1, 1));
    assert_eq!(engine.stats().audit_entries, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_read_in_whole_beside_its_writer() {
    let (engine, _folder) = engine();
    engine.write(|tx| put(tx, "test-before")).await.unwrap();
    let (found, written) = tokio::join!(engine.find_damage(), engine.write(|tx| put(tx, "test-beside")));
    assert_eq!(found, Ok(None));
    written.unwrap();
    let sizes = engine.sizes().unwrap();
    assert!(
        sizes.database > 0 && sizes.wal > 0 && sizes.volume >= sizes.available,
        "{sizes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fatal_error_nothing_is_served_and_watchers_find_out() {
    let (engine, _folder) = engine();
    let watcher = engine.watch(&[Topic::Environment(EnvironmentId::new())]);
    let results = together(
        &engine,
        vec![
            |tx| put(tx, "test-a"),
            |_| Err(StoreError::Failed("disk I/O error".into())),
            |tx| put(tx, "test-b"),
        ],
    );
    let failed = Err(StoreError::Failed("disk I/O error".into()));
    assert_eq!(results.await, [failed.clone(), failed.clone(), failed.clone()]);
    watcher.changed().await;
    assert_eq!(
        engine.state(),
        State::Failed {
            reason: "disk I/O error".to_owned()
        }
    );
    assert_eq!(engine.write(|tx| put(tx, "test-c")).await, failed);
    assert_eq!(engine.read(|_| Ok(())).await, failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_database_is_fatal() {
    let (engine, folder) = engine();
    engine.write(|tx| put(tx, "test-a")).await.unwrap();
    // Every page but the first, in the log and in the file, as a bad disk would leave them.
    for name in ["sealpod.db", "sealpod.db-wal"] {
        use std::os::unix::fs::FileExt;
        let path = folder.path().join(name);
        let length = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        for at in (8192..length).step_by(512) {
            file.write_all_at(&[0xa5; 512], at).unwrap();
        }
    }
    let read = engine.read(|view| {
        let sql = "SELECT count(*) FROM audit_entries a, meta m, sqlite_schema s WHERE a.hash <> m.value";
        Ok(view.conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    assert!(matches!(read.await, Err(StoreError::Failed(_))));
    assert!(matches!(engine.state(), State::Failed { .. }));
    assert!(matches!(
        engine.write(|tx| put(tx, "test-b")).await,
        Err(StoreError::Failed(_))
    ));
}

#[tokio::test]
async fn every_connection_is_set_up_for_safety() {
    fn settings(conn: &rusqlite::Connection) -> Result<Vec<i64>> {
        let names = [
            "synchronous",
            "foreign_keys",
            "trusted_schema",
            "secure_delete",
            "query_only",
            "wal_autocheckpoint",
        ];
        let get = |name| Ok(conn.pragma_query_value(None, name, |row| row.get(0))?);
        names.into_iter().map(get).collect()
    }
    let (engine, _folder) = engine();
    // 2 is FULL: a commit is on disk before it is answered.
    assert_eq!(engine.write(|tx| settings(tx.conn)).await.unwrap(), [2, 1, 0, 1, 0, 0]);
    assert_eq!(
        engine.read(|view| settings(view.conn)).await.unwrap(),
        [2, 1, 0, 1, 1, 0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_panics_leaves_nobody_waiting() {
    let (engine, folder) = engine();
    // The writer is busy, so that this change still waits when the thread dies.
    let release = hold(&engine);
    let waiting = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.write(|tx| put(tx, "test-a")).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (health, reads, writes) = (
        Arc::clone(&engine.health),
        Arc::clone(&engine.reads),
        Arc::clone(&engine.writes),
    );
    let on_panic = move || give_up(&health, &reads, &writes);
    let thread = spawn(folder.path(), "test".to_owned(), || panic!("a defect"), on_panic).unwrap();
    assert!(thread.join().is_err());
    assert!(matches!(waiting.await.unwrap(), Err(StoreError::Failed(_))));
    assert!(matches!(engine.state(), State::Failed { .. }));
    assert!(matches!(engine.read(|_| Ok(())).await, Err(StoreError::Failed(_))));
    drop(release);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let (engine, _folder) = engine();
    let refused = engine.read(|view| Ok(view.conn.execute("DELETE FROM meta", [])?));
    let refused = refused.await.unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");
}

#[test]
fn a_clock_that_is_set_back_revives_no_credential() {
    let (engine, _folder) = engine();
    let now = engine.credential_clock();
    let ahead = now.plus_seconds(3600);
    engine.clock.set(ahead);
    assert_eq!(engine.credential_clock(), ahead);
    assert!(Time::now() < ahead);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_stops_for_nobody_who_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        readers: 1,
        ..Options::new(folder.path().join("sealpod.db"))
    };
    let engine = Engine::open(&options, &Keyring::parse(MASTER_KEY).unwrap()).unwrap();
    let endless = engine.read::<(), _>(|view| {
        loop {
            view.go_on()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), endless).await.is_err());
    let next = tokio::time::timeout(Duration::from_secs(10), engine.read(|_| Ok(())));
    next.await.expect("the one reader is free again").unwrap();
    assert_eq!(engine.state(), State::Serving);
}

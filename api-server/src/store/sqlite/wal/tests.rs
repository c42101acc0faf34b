use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;

use super::super::Engine;
use super::super::open::KEPT_LOG;
use super::*;
use crate::crypto::Keyring;
use crate::store::{Options, StoreError};

const MIB: u64 = 1024 * 1024;

#[test]
fn the_writer_copies_only_what_is_little_or_what_it_writes_faster_than_others_copy() {
    let mut seen = Seen::default();
    let turn = |seen: &mut Seen, pages, copied| {
        let log = Log { pages, copied };
        let turn = seen.turn(log, false);
        if !matches!(turn, Turn::Nobody | Turn::Wait) {
            seen.attempt(&turn, log);
        }
        turn
    };
    let passed = |seen: &mut Seen, pages, copied| seen.passed(Some(&Log { pages, copied }));
    assert_eq!(turn(&mut seen, LONG - 1, 0), Turn::Nobody);
    assert_eq!(turn(&mut seen, LONG, 0), Turn::Checkpointer);
    // While it is at it, unless it is outrun.
    assert_eq!(turn(&mut seen, LONG + OUTRUN, 0), Turn::Nobody);
    assert_eq!(turn(&mut seen, LONG + OUTRUN + 1, 0), Turn::Wait);
    // Somebody's read stands in the way of all of it, which is looked at again in a while.
    passed(&mut seen, LONG + AGAIN, 0);
    assert_eq!(turn(&mut seen, LONG + AGAIN - 1, 0), Turn::Nobody);
    assert_eq!(turn(&mut seen, LONG + AGAIN, 0), Turn::Checkpointer);
    // All is copied but what was written meanwhile.
    passed(&mut seen, LONG + AGAIN, LONG);
    assert_eq!(turn(&mut seen, LONG + AGAIN, LONG), Turn::Writer);
    // That is much, and so it is behind the next time.
    assert_eq!(turn(&mut seen, LONG * 3, LONG), Turn::Checkpointer);
    passed(&mut seen, LONG * 3, LONG * 2);
    assert_eq!(turn(&mut seen, LONG * 4, LONG * 2), Turn::Checkpointer);
    passed(&mut seen, LONG * 4, LONG * 3);
    assert_eq!(turn(&mut seen, LONG * 6, LONG * 3), Turn::Writer);
    // Begun anew.
    assert_eq!(turn(&mut seen, 1, 0), Turn::Nobody);
    assert_eq!(turn(&mut seen, LONG, 0), Turn::Checkpointer);
    // Where there is no room, nobody else writes.
    passed(&mut seen, LONG, 1);
    let all = Log { pages: LONG, copied: 1 };
    assert_eq!(seen.turn(all, true), Turn::Writer);
}

fn engine(change: impl FnOnce(&mut Options)) -> (Arc<Engine>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let keyring = crate::crypto::generate_master_key();
    let mut options = Options::new(folder.path().join("sealpod.db"));
    options.readers = 2;
    change(&mut options);
    let engine = Engine::open(&options, &Keyring::parse(keyring.expose()).unwrap()).unwrap();
    (Arc::new(engine), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_begun_is_waited_for_until_it_is_done_or_the_database_failed() {
    let (engine, _folder) = engine(|_| {});
    let settle = |engine: &Arc<Engine>| {
        let (engine, done) = (Arc::clone(engine), Arc::new(AtomicBool::new(false)));
        let said = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            engine.health.wal.settle(&engine.health);
            said.store(true, Ordering::SeqCst);
        });
        (thread, done)
    };
    // Nobody copies.
    settle(&engine).0.join().unwrap();
    let begin = || engine.health.wal.seen().aside = true;
    begin();
    let (thread, done) = settle(&engine);
    // Longer than it waits at a time.
    std::thread::sleep(WAIT_FOR_PASS);
    assert!(!done.load(Ordering::SeqCst));
    engine.health.wal.passed(None);
    thread.join().unwrap();
    // A thread that has panicked never says so.
    begin();
    engine.health.note(&StoreError::Failed("it panicked".into()));
    settle(&engine).0.join().unwrap();
}

/// So many commits, each of a quarter of a MiB.
async fn write(engine: &Engine, commits: u64) {
    for _ in 0..commits {
        let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES ('test', randomblob(262144))";
        engine.write(|tx| Ok(tx.conn.execute(sql, [])?)).await.unwrap();
    }
}

fn wal(engine: &Engine) -> u64 {
    engine.sizes().unwrap().wal
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_follow_each_other_without_a_gap_do_not_make_the_log_grow() {
    let (engine, _folder) = engine(|_| {});
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // More than there are threads, so that none of these is ever without one; of different lengths, so that they never
    // end together for long.
    let readers = [5, 6, 7, 8].map(|length| {
        let (engine, stop, reads) = (Arc::clone(&engine), Arc::clone(&stop), Arc::clone(&reads));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let read = engine.read(move |view| {
                    let sql = "SELECT count(*) FROM meta";
                    let rows = view.conn.query_row(sql, [], |row| row.get::<_, i64>(0))?;
                    // The transaction goes on.
                    std::thread::sleep(Duration::from_millis(length));
                    Ok(rows)
                });
                read.await.unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    write(&engine, 200).await;
    assert!(reads.load(Ordering::Relaxed) > 4);
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(wal(&engine) < 32 * MIB, "{}", wal(&engine));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_takes_too_long_is_ended_and_the_log_begins_anew() {
    let (engine, _folder) = engine(|options| options.read_time = Some(Duration::from_millis(200)));
    let held = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move {
            let read = engine.read::<(), _>(|view| {
                view.conn.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
                loop {
                    view.go_on()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            read.await
        }
    });
    while !held.is_finished() {
        write(&engine, 1).await;
    }
    assert_eq!(held.await.unwrap(), Err(StoreError::TooSlow));
    let before = wal(&engine);
    write(&engine, 100).await;
    let after = wal(&engine);
    assert!(after <= before.max(20 * MIB), "{before} bytes became {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_that_is_given_up_is_not_eaten_by_a_database_that_grows() {
    let (engine, folder) = engine(|options| options.reserve = true);
    let database = || folder.path().join("sealpod.db").metadata().unwrap().len();
    // As much as a reader that stands in the way makes of the log.
    let (reading, reads) = std::sync::mpsc::channel();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let read = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move {
            let read = engine.read(move |view| {
                view.conn.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
                reading.send(()).ok();
                held.recv().ok();
                Ok(())
            });
            read.await
        }
    });
    reads.recv().unwrap();
    for n in 0..24 {
        let sql = "INSERT INTO meta (name, value) VALUES (?1, randomblob(262144))";
        let name = format!("test {n}");
        engine.write(move |tx| Ok(tx.conn.execute(sql, [name])?)).await.unwrap();
    }
    let before = database();
    assert!(before < MIB, "nothing was in the way");
    engine.health.wal.settle(&engine.health);
    assert!(engine.health.reserve.give_up());
    release.send(()).unwrap();
    read.await.unwrap().unwrap();
    // Another one, so that the log is looked after behind the first: it is once the answer is out.
    let light = async || {
        let sql = "UPDATE meta SET value = randomblob(262144) WHERE name = 'test 0'";
        let write = engine.write(move |tx| {
            tx.gives_back();
            Ok(tx.conn.execute(sql, [])?)
        });
        write.await.unwrap();
    };
    for _ in 0..8 {
        light().await;
    }
    assert_eq!(database(), before, "the reserve's room went to the database");

    engine.refill_reserve().await;
    for _ in 0..8 {
        light().await;
        engine.health.wal.settle(&engine.health);
    }
    assert!(database() > before + 4 * MIB, "with room, the log is copied as always");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_come_back_is_ended_too() {
    let (engine, _folder) = engine(|options| options.read_time = Some(Duration::from_millis(100)));
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n";
    let read = engine.read(move |view| Ok(view.conn.query_row(endless, [], |row| row.get::<_, i64>(0))?));
    assert_eq!(read.await, Err(StoreError::TooSlow));
    // The thread reads on, and what comes next has its own time.
    let next = engine.read(|view| Ok(view.conn.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(next.await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_far_too_long_leaves_reads_a_second() {
    let (engine, _folder) = engine(|_| {});
    let held = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move {
            let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                SELECT sum(i) FROM n, (SELECT count(*) FROM meta)";
            let read = engine.read(move |view| Ok(view.conn.query_row(endless, [], |row| row.get::<_, i64>(0))?));
            read.await
        }
    });
    // What the log has to be, with somebody in its way.
    while !engine.health.wal.is_far_too_long() && !held.is_finished() {
        write(&engine, 1).await;
    }
    assert_eq!(held.await.unwrap(), Err(StoreError::TooSlow));
    // The first one may be left alone with a copy that takes long; what is behind the next has been looked after with the last.
    write(&engine, 1).await;
    engine.health.wal.settle(&engine.health);
    write(&engine, 2).await;
    assert!(!engine.health.wal.is_far_too_long());
    // The file is as long as a burst may make it, whatever came beyond.
    let limit = KEPT_LOG.unsigned_abs() + MIB;
    assert!(wal(&engine) <= limit, "{}", wal(&engine));
}

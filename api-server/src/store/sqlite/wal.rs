//! Keeps the write-ahead log short, and ends reads that would keep it long.
//!
//! A log that is copied into the database begins anew at the next write, if nobody reads from it any more. Two threads
//! that read one after the other, each a little later than the other, are enough for that never to happen; so behind a
//! certain length the writer waits for those who read at that moment. Who reads for long is waited for in vain, and is
//! ended in the end.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::{Result, StoreError};
use super::open::BUSY;
use super::row::number;

/// The log is copied into the database once it is this long, in pages of 4 KiB: SQLite's own figure.
const LONG: i64 = 1_000;
/// From here on, those who read are waited for. 16 MiB: what a bulk import makes of it without anybody's fault.
const TOO_LONG: i64 = 4_000;
/// How long: ordinary reads take less than a millisecond, and nobody writes meanwhile.
const WAIT: Duration = Duration::from_millis(20);
/// How much longer the log is when the next attempt is made, behind one that somebody's read stood in the way of; or how
/// long ago that was.
const AGAIN: i64 = 250;
const AGAIN_TOO_LONG: i64 = 1_000;
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// From here on a read may take [`HURRIED`] only. 64 MiB, what the file keeps of a burst, so that it goes no further.
const FAR_TOO_LONG: i64 = 16_000;
const HURRIED: Duration = Duration::from_secs(1);
/// For so long behind the last write that found it so: while nobody writes, it does not grow.
const HURRY: Duration = Duration::from_secs(2);
/// Steps of SQLite's machine between two looks at the time: some tenths of a millisecond.
pub(super) const STEPS: i32 = 10_000;

/// The state of the log, for who writes and who reads.
#[derive(Default)]
pub(super) struct Wal(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Length at which the next attempt is made, and when the last one was.
    next: i64,
    tried: Option<Instant>,
    /// When it was far too long.
    far: Option<Instant>,
}

impl Wal {
    /// What SQLite would do by itself at every commit, but for one thing: it would say nothing if the database's fsync
    /// failed, try again later, be told that all is well, and forget what only the log still had.
    ///
    /// `most`: by how many bytes the database may grow at that, where there is a limit.
    pub(super) fn tend(&self, writer: &Connection, most: Option<u64>) -> rusqlite::Result<()> {
        let pages = checkpoint(writer, "PRAGMA wal_checkpoint(NOOP)")?.pages;
        let mut seen = self.seen();
        seen.far = (pages >= FAR_TOO_LONG).then(Instant::now);
        if pages < LONG {
            seen.next = LONG;
            return Ok(());
        }
        let lately = seen.tried.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
        if pages < seen.next && lately {
            return Ok(());
        }
        if most.is_some_and(|most| growth(writer) > most) {
            return Ok(());
        }
        drop(seen);
        let step = if pages < TOO_LONG {
            checkpoint(writer, "PRAGMA wal_checkpoint(PASSIVE)")?;
            AGAIN
        } else {
            writer.busy_timeout(WAIT)?;
            let restarted = checkpoint(writer, "PRAGMA wal_checkpoint(RESTART)");
            writer.busy_timeout(BUSY)?;
            restarted?;
            AGAIN_TOO_LONG
        };
        let mut seen = self.seen();
        (seen.next, seen.tried) = (pages + step, Some(Instant::now()));
        Ok(())
    }

    /// Whether everybody who reads should come to an end.
    pub(super) fn is_far_too_long(&self) -> bool {
        self.seen().far.is_some_and(|at| at.elapsed() < HURRY)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that runs under this lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Checkpoint {
    /// Length of the log.
    pages: i64,
}

/// By how many bytes the database's own file is shorter than it is with all of the log.
fn growth(writer: &Connection) -> u64 {
    let pragma = |sql: &str| writer.query_row(sql, [], |row| number(row, 0));
    let all = pragma("PRAGMA page_count").and_then(|pages| Ok(pages * pragma("PRAGMA page_size")?));
    let path = writer.path().map(std::fs::metadata);
    match (all, path) {
        (Ok(all), Some(Ok(file))) => all.saturating_sub(file.len()),
        // Nothing is known, so nothing is risked.
        _ => u64::MAX,
    }
}

fn checkpoint(connection: &Connection, sql: &str) -> rusqlite::Result<Checkpoint> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([], |row| Ok(Checkpoint { pages: row.get(1)? }))
}

/// The time that the reads of one connection may take.
#[derive(Clone)]
pub(super) struct Patience(Arc<Reading>);

struct Reading {
    wal: Arc<Wal>,
    most: Option<Duration>,
    /// Since when it reads.
    since: Mutex<Option<Instant>>,
}

impl Patience {
    /// Ends what takes longer, even one statement that never comes back by itself.
    pub(super) fn over(connection: &Connection, wal: Arc<Wal>, most: Option<Duration>) -> rusqlite::Result<Self> {
        let patience = Self(Arc::new(Reading {
            wal,
            most,
            since: Mutex::default(),
        }));
        let asked = patience.clone();
        connection.progress_handler(STEPS, Some(move || asked.is_over()))?;
        Ok(patience)
    }

    /// A read begins.
    pub(super) fn begin(&self) {
        self.set(Some(Instant::now()));
    }

    pub(super) fn end(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_over(&self) -> bool {
        let Reading { wal, most, since } = &*self.0;
        let Some(most) = *most else { return false };
        let most = if wal.is_far_too_long() { most.min(HURRIED) } else { most };
        let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= most)
    }

    /// An error once it is over.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_over() {
            return Err(StoreError::TooSlow);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tempfile::TempDir;

    use super::super::Engine;
    use super::*;
    use crate::crypto::Keyring;
    use crate::store::Options;

    const MIB: u64 = 1024 * 1024;

    fn engine(change: impl FnOnce(&mut Options)) -> (Arc<Engine>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let keyring = crate::crypto::generate_master_key();
        let mut options = Options::new(folder.path().join("sealpod.db"));
        options.readers = 2;
        change(&mut options);
        let engine = Engine::open(&options, &Keyring::parse(keyring.expose()).unwrap()).unwrap();
        (Arc::new(engine), folder)
    }

    /// So many commits, each of a quarter of a MiB.
    async fn write(engine: &Engine, commits: usize) {
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
        let (begun, reads) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let read = tokio::spawn({
            let engine = Arc::clone(&engine);
            async move {
                let read = engine.read(move |view| {
                    view.conn.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
                    begun.send(()).ok();
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
        while engine.health.wal.is_far_too_long() {
            write(&engine, 1).await;
        }
        // The file is as long as a burst may make it, whatever came beyond.
        let limit = 64 * MIB + MIB;
        assert!(wal(&engine) <= limit, "{}", wal(&engine));
    }
}

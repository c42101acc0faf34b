//! Keeps the write-ahead log short.
//!
//! A log that is copied into the database begins anew at the next write, if nobody reads from it any more. Two threads
//! that read one after the other, each a little later than the other, are enough for that never to happen; so behind a
//! certain length the writer waits for those who read at that moment. Who reads for long is waited for in vain, and
//! is [ended](super::patience) in the end.
//!
//! Nobody waits for what the copy takes but for its last bit: the [checkpointer](super::checkpointer) does the most of it. Only
//! behind a read that was ended all wait for that, too, so that what it kept long becomes no longer.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::Result;
use super::checkpointer::Checkpointer;
use super::health::Health;
use super::open::BUSY;
use super::row::number;

/// The log is copied into the database once it is this long, in pages of 4 KiB: SQLite's own figure.
const LONG: i64 = 1_000;
/// What the writer copies itself: some milliseconds, with the flush.
const LITTLE: i64 = 250;
/// So often there is more than that although somebody copies; then it is written too fast, and the writer does it.
const PASSES: u32 = 2;
/// What may be written while the checkpointer is at it; behind that it is waited for, this long by each commit. 8 MiB: who
/// writes more is faster than the disk.
const OUTRUN: i64 = 2_000;
const WAIT_FOR_PASS: Duration = Duration::from_secs(1);
/// From here on, those who read are waited for. 16 MiB: what a bulk import makes of it without anybody's fault.
const TOO_LONG: i64 = 4_000;
/// How long: ordinary reads take less than a millisecond, and nobody writes meanwhile.
const WAIT: Duration = Duration::from_millis(20);
/// How much longer the log is when the next attempt is made, behind one that somebody's read stood in the way of; or how
/// long ago that was.
const AGAIN: i64 = 250;
const AGAIN_TOO_LONG: i64 = 1_000;
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// From here on reads are hurried. 64 MiB, what the file keeps of a burst, so that it goes no further.
const FAR_TOO_LONG: i64 = 16_000;
/// For so long behind the last write that found it so: while nobody writes, it does not grow.
const HURRY: Duration = Duration::from_secs(2);

/// The state of the log, for who writes and who reads.
#[derive(Default)]
pub(super) struct Wal {
    seen: Mutex<Seen>,
    passed: Condvar,
}

#[derive(Default)]
struct Seen {
    /// Length at which the next attempt is made, and when the last one was.
    next: i64,
    tried: Option<Instant>,
    /// What there was before it.
    before: Log,
    /// Whether the checkpointer is at it, and how often it copied anything since the writer did or the log began anew.
    aside: bool,
    passes: u32,
    /// When it was far too long.
    far: Option<Instant>,
    /// Whether a read was ended since the last write.
    freed: bool,
}

/// Who copies.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Nobody,
    Checkpointer,
    Writer,
    /// The checkpointer is at it, and everything waits for it.
    Wait,
}

impl Seen {
    /// Whose turn it is while the log is so long. `alone`: the writer does all of it.
    fn turn(&mut self, log: Log, alone: bool) -> Turn {
        self.far = (log.pages >= FAR_TOO_LONG).then(Instant::now);
        if log.pages < LONG {
            (self.next, self.passes) = (LONG, 0);
            return Turn::Nobody;
        }
        if self.aside {
            let outruns = log.pages - self.before.pages > OUTRUN;
            return if outruns { Turn::Wait } else { Turn::Nobody };
        }
        let lately = self.tried.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
        if log.pages < self.next && lately {
            return Turn::Nobody;
        }
        if !alone && log.rest() > LITTLE && self.passes < PASSES {
            return Turn::Checkpointer;
        }
        Turn::Writer
    }

    /// An attempt begins.
    fn attempt(&mut self, turn: &Turn, log: Log) {
        let step = if log.is_too_long() { AGAIN_TOO_LONG } else { AGAIN };
        (self.next, self.tried, self.before) = (log.pages + step, Some(Instant::now()), log);
        match turn {
            Turn::Checkpointer => self.aside = true,
            Turn::Writer => self.passes = 0,
            Turn::Nobody | Turn::Wait => {}
        }
    }

    /// What became of the one of the checkpointer.
    fn passed(&mut self, log: Option<&Log>) {
        self.aside = false;
        if log.is_some_and(|log| log.copied > self.before.copied) {
            // Nobody who reads for long is in the way, and the rest is little while it is new.
            (self.next, self.passes) = (0, self.passes + 1);
        }
    }
}

impl Wal {
    /// What SQLite would do by itself at every commit, but for one thing: it would say nothing if the database's fsync
    /// failed, try again later, be told that all is well, and forget what only the log still had.
    ///
    /// `most`: by how many bytes the database may grow at that, where there is a limit; then nobody else does it. Answers
    /// whether the writer copied, or waited for who does.
    pub(super) fn tend(
        &self,
        (writer, checkpointer): (&Connection, &Checkpointer),
        health: &Health,
        most: Option<u64>,
    ) -> Result<bool> {
        let log = checkpoint(writer, Log::NOOP)?;
        let turn = self.seen().turn(log, most.is_some());
        match turn {
            Turn::Nobody => return Ok(false),
            Turn::Wait => {
                self.wait(WAIT_FOR_PASS);
                return Ok(true);
            }
            Turn::Checkpointer | Turn::Writer => {}
        }
        if !may_copy(writer, most) {
            return Ok(false);
        }
        // What became of the last pass is known where it is not the checkpointer's turn any more.
        health.check()?;
        self.seen().attempt(&turn, log);
        if turn == Turn::Checkpointer {
            checkpointer.ask();
        } else if log.is_too_long() {
            restart(writer)?;
        } else {
            checkpoint(writer, Log::PASSIVE)?;
        }
        Ok(turn == Turn::Writer)
    }

    /// A read was ended, and does not stand in the way any more.
    pub(super) fn freed(&self) {
        self.seen().freed = true;
    }

    /// Before a write: behind a read that was ended, the log begins anew with it. What that read kept long may be as much as
    /// the file may have, and would only become longer with somebody else's next long read. `most` as in [`Wal::tend`]; answers
    /// whether there was anything to do. What takes long is left to the next write.
    pub(super) fn renew(
        &self,
        (writer, checkpointer): (&Connection, &Checkpointer),
        health: &Health,
        most: Option<u64>,
    ) -> Result<bool> {
        if !self.seen().freed || !may_copy(writer, most) {
            return Ok(false);
        }
        let log = checkpoint(writer, Log::NOOP)?;
        let mut seen = self.seen();
        if !seen.aside && log.rest() > LITTLE && most.is_none() {
            seen.attempt(&Turn::Checkpointer, log);
            checkpointer.ask();
        }
        drop(seen);
        if self.wait(WAIT_FOR_PASS) {
            return Ok(true);
        }
        health.check()?;
        self.seen().freed = false;
        restart(writer)?;
        Ok(true)
    }

    /// The checkpointer is done.
    pub(super) fn passed(&self, log: Option<&Log>) {
        self.seen().passed(log);
        self.passed.notify_all();
    }

    /// Until the checkpointer is done, or nobody knows when it will be.
    pub(super) fn settle(&self, health: &Health) {
        while self.wait(WAIT_FOR_PASS) && health.check().is_ok() {}
    }

    /// Whether the checkpointer is at it, behind so long at the most.
    fn wait(&self, most: Duration) -> bool {
        let waited = self.passed.wait_timeout_while(self.seen(), most, |seen| seen.aside);
        waited.unwrap_or_else(PoisonError::into_inner).0.aside
    }

    /// Whether everybody who reads should come to an end.
    pub(super) fn is_far_too_long(&self) -> bool {
        self.seen().far.is_some_and(|at| at.elapsed() < HURRY)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that runs under this lock can panic half way.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What SQLite says of the log, in pages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Log {
    pages: i64,
    /// Those that are in the database by now.
    copied: i64,
}

impl Log {
    pub(super) const NOOP: &str = "PRAGMA wal_checkpoint(NOOP)";
    pub(super) const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";
    const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";
    pub(super) const TRUNCATE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

    pub(super) fn has_any(&self) -> bool {
        self.pages > 0
    }

    /// Whether all of it is in the database. Without a lock nothing is known, and both figures are -1.
    pub(super) fn is_copied(&self) -> bool {
        self.pages >= 0 && self.rest() == 0
    }

    /// How much is only in the log.
    fn rest(&self) -> i64 {
        self.pages - self.copied
    }

    fn is_too_long(&self) -> bool {
        self.pages >= TOO_LONG
    }
}

/// Whether the database may be made as long as it is with all of the log, where it may grow by `most` bytes only.
pub(super) fn may_copy(writer: &Connection, most: Option<u64>) -> bool {
    most.is_none_or(|most| growth(writer) <= most)
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

/// Copies all of the log and waits for those who read from it, so that it begins anew at the next write.
fn restart(writer: &Connection) -> rusqlite::Result<()> {
    writer.busy_timeout(WAIT)?;
    let restarted = checkpoint(writer, Log::RESTART);
    writer.busy_timeout(BUSY)?;
    restarted.map(drop)
}

/// Copies as `how` says.
pub(super) fn checkpoint(connection: &Connection, how: &str) -> rusqlite::Result<Log> {
    let mut statement = connection.prepare_cached(how)?;
    statement.query_row([], |row| {
        Ok(Log {
            pages: row.get(1)?,
            copied: row.get(2)?,
        })
    })
}

#[cfg(test)]
mod tests;

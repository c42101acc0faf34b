//! The thread that writes.
//!
//! Group commit: the writer takes what is waiting, runs each job in a savepoint of its own inside one transaction,
//! commits once (one fsync for all of them), and then answers. A lone caller waits for nobody. A job that fails rolls
//! back to its savepoint and leaves its neighbours alone; a commit that fails takes all of them with it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sealpod_core::Time;

use super::super::watch::Change as Moved;
use super::super::watch::Hub;
use super::super::{Meters, Result, StoreError};
use super::checkpointer::Checkpointer;
use super::clock::{self, Clock, Step};
use super::files::Lock;
use super::fresh::Touched;
use super::heads::Heads;
use super::health::Health;
use super::job::{Reach, WriteJob};
use super::open;
use super::own_log::Mark;
use super::place::Place;
use super::queue::{Next, Queue};
use super::remembered::Remembered;
use super::reserve;
use super::row::run as execute;
use super::tx::{Chains, Tx};
use super::uses::{self, Uses};
use super::wal::{Wal, may_copy};
use crate::audit::{AuditKey, Head};
use crate::ids::AccountId;

/// Most jobs of one commit, and how long it may go on taking more: what bounds the wait of the first one.
const MAX_BATCH: usize = 512;
const MAX_GATHER: Duration = Duration::from_millis(20);
/// Rows of the audit log's lists that are written for each entry that is appended, which has three itself: reading the
/// entries and writing the rows both keep pace.
const ROWS_PER_ENTRY: u64 = 8;
const MIN_ROWS: u64 = 64;
/// Some milliseconds, in what others wait for.
const MAX_ROWS: u64 = 4_096;
/// While nobody waits: about a millisecond.
const IDLE_ROWS: u64 = 1_024;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) mark: Mark,
    pub(super) checkpointer: Checkpointer,
    /// See [`Checkpointer::begin`].
    pub(super) database: Arc<File>,
    pub(super) place: Arc<Place>,
    /// Held for as long as this process may write.
    pub(super) lock: Lock,
    pub(super) jobs: Arc<Queue<Box<dyn WriteJob>>>,
    pub(super) key: AuditKey,
    pub(super) health: Arc<Health>,
    pub(super) hub: Arc<Hub>,
    pub(super) uses: Arc<Uses>,
    pub(super) clock: Arc<Clock>,
    pub(super) heads: Arc<Heads>,
    pub(super) remembered: Arc<Remembered>,
    pub(super) chains: Chains,
    pub(super) meters: Meters,
}

/// What a transaction has gathered.
#[derive(Default)]
struct Batch {
    jobs: Vec<Box<dyn WriteJob>>,
    topics: Vec<Moved>,
    touched: Touched,
    /// Ends of chains, as its jobs leave them one after the other; the last one of a chain counts.
    heads: Vec<Head>,
    /// How many audit entries it has.
    entries: u64,
    /// Whether anything in it is to be committed.
    changed: bool,
}

impl Writer {
    pub(super) fn run(self) {
        loop {
            // Where there is work that nobody waits for, it is done between what somebody waits for.
            let until = if self.chains.runs.is_idle() || self.health.reserve.is_given_up() {
                self.uses.due()
            } else {
                Instant::now()
            };
            match self.jobs.next(Some(until)) {
                Next::Item(job) => self.batch(Some(job), false),
                Next::Late => self.batch(None, false),
                Next::Closed => break,
            }
        }
        self.batch(None, true);
        let Self {
            connection,
            checkpointer,
            database,
            place,
            lock,
            health,
            ..
        } = self;
        drop(checkpointer);
        // After a fault the files stay as they are: whatever came of it is found out when they are opened next, unless the log
        // would not be found then. So they do where the room that is left is the audit log's.
        if health.check().is_ok() && may_copy(&connection, most_growth(&health)) {
            if let Err(error) = open::close(connection) {
                tracing::warn!(%error, "the database was not tidied up");
                let error = error.into();
                health.note(&error);
                health.note_commit(Some(&error));
            }
        } else {
            if health.is_log_lost_only() {
                place.save(&connection);
            } else if health.check().is_ok() {
                tracing::warn!(
                    "the disk is full: the newest changes stay in the file ending in -wal beside the database, which is worth nothing without it; free space and start again"
                );
            }
            drop(connection);
        }
        drop(database);
        drop(lock);
    }

    fn batch(&self, first: Option<Box<dyn WriteJob>>, last: bool) {
        let uses = self.uses.take(last);
        let step = self.clock.step(uses.is_some());
        let uses = uses.unwrap_or_default();
        // The lists of the audit log can wait for room, its entries cannot.
        let index = !last && !self.chains.runs.is_idle() && !self.health.reserve.is_given_up();
        if first.is_none() && uses.is_empty() && step.is_none() && !index {
            return;
        }
        let mut batch = Batch::default();
        let renewed = self.renew_log();
        let began = Instant::now();
        let result = match renewed
            .and_then(|()| self.begin())
            .and_then(|()| self.write_clock(step, &mut batch))
        {
            Ok(()) => self
                .gather(first, &mut batch)
                .and_then(|()| self.write_uses(&uses, &mut batch))
                .and_then(|()| if index { self.index(&mut batch) } else { Ok(()) })
                .and_then(|()| self.finish(&batch, began)),
            Err(error) => {
                batch.jobs.extend(first);
                Err(error)
            }
        };
        if let Err(error) = &result {
            self.undo();
            self.health.note(error);
            self.health.note_commit(Some(error));
            if *error == StoreError::DiskFull {
                self.make_room();
            }
        }
        // Before anybody hears of a new credential, which is to be judged by the clock as it is now.
        if let (Ok(()), Some(step)) = (&result, step) {
            self.clock.done(step);
        }
        // Whoever hears that a change is made finds everybody woken who waited for it.
        if result.is_ok() {
            self.hub.publish(&batch.topics);
        }
        for job in batch.jobs {
            job.answer(&result);
        }
        if result.is_ok() {
            self.heads.note(&batch.heads);
            self.tend_log();
        }
    }

    /// Nobody waits for this, and what was answered is safe in the log whatever comes of it.
    fn tend_log(&self) {
        if let Err(error) = self.on_log(Wal::tend) {
            self.health.note(&error);
        }
    }

    fn renew_log(&self) -> Result<()> {
        self.health.check()?;
        self.on_log(Wal::renew)
    }

    /// Does this with the log, and counts how long it took where there was anything to do.
    fn on_log(
        &self,
        work: impl FnOnce(&Wal, (&Connection, &Checkpointer), &Health, Option<u64>) -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        let copying = (&self.connection, &self.checkpointer);
        if work(&self.health.wal, copying, &self.health, most_growth(&self.health))? {
            self.meters.log_seconds.observe(began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// What the reserve holds is for the log, and a copy that has begun would take it for the database.
    fn make_room(&self) {
        self.health.wal.settle(&self.health);
        self.health.make_room();
    }

    fn begin(&self) -> Result<()> {
        self.health.check()?;
        Ok(execute(&self.connection, "BEGIN IMMEDIATE")?)
    }

    /// Runs `first` and what else is waiting. An error is one of the transaction as a whole.
    fn gather(&self, first: Option<Box<dyn WriteJob>>, batch: &mut Batch) -> Result<()> {
        let began = Instant::now();
        let mut next = first;
        while let Some(mut job) = next {
            self.health.writes.fetch_add(1, Ordering::Relaxed);
            let result = self.run_one(job.as_mut(), batch);
            batch.jobs.push(job);
            result?;
            let full = batch.jobs.len() >= MAX_BATCH || began.elapsed() >= MAX_GATHER;
            next = if full { None } else { self.jobs.waiting() };
        }
        Ok(())
    }

    fn run_one(&self, job: &mut dyn WriteJob, batch: &mut Batch) -> Result<()> {
        let reach = job.reach();
        // A record is one statement, which SQLite does wholly or not at all; if it fails, the disk does, or we.
        let alone = reach == Reach::Nothing;
        if !alone {
            execute(&self.connection, "SAVEPOINT job")?;
        }
        let tx = Tx::new(&self.connection, &self.key, &self.chains, &self.health);
        match job.run(&tx) {
            Ok(()) => {
                if !alone {
                    execute(&self.connection, "RELEASE job")?;
                }
                batch.changed = true;
                let traces = tx.finish();
                for head in traces.heads {
                    batch.entries += 1;
                    match batch.heads.last_mut() {
                        Some(last) if last.chain == head.chain => *last = head,
                        _ => batch.heads.push(head),
                    }
                }
                batch.touched.everything |= reach == Reach::Everything;
                batch.touched.secrets.extend(traces.secrets);
                for topic in traces.topics {
                    if !batch.topics.contains(&topic) {
                        batch.topics.push(topic);
                    }
                }
                Ok(())
            }
            Err(fatal @ StoreError::Failed(_)) => Err(fatal),
            // A full disk, for one, makes SQLite roll back all of the transaction.
            Err(error) if alone || self.connection.is_autocommit() => Err(error),
            Err(error) => {
                if error == StoreError::DiskFull && !self.health.reserve.is_given_up() {
                    self.health.note_commit(Some(&error));
                    self.make_room();
                }
                tx.roll_back_to("ROLLBACK TO job")?;
                Ok(execute(&self.connection, "RELEASE job")?)
            }
        }
    }

    /// Before the jobs, so that what they make is judged by the clock as it is from here on.
    fn write_clock(&self, step: Option<Step>, batch: &mut Batch) -> Result<()> {
        let Some(step) = step else { return Ok(()) };
        batch.changed = true;
        // What had ended by the clock as it was is removed.
        batch.touched.everything |= matches!(step, Step::Back { .. });
        clock::write(&self.connection, step)
    }

    fn write_uses(&self, uses: &HashMap<AccountId, Time>, batch: &mut Batch) -> Result<()> {
        batch.changed |= !uses.is_empty();
        uses::write(&self.connection, uses)
    }

    /// Goes on with the lists of the audit log, further the more there is in this transaction: never behind for long, and
    /// never in the way. An error of theirs is nobody's whose change stands beside it.
    fn index(&self, batch: &mut Batch) -> Result<()> {
        let rows = if batch.jobs.is_empty() {
            IDLE_ROWS
        } else {
            (ROWS_PER_ENTRY * batch.entries).clamp(MIN_ROWS, MAX_ROWS)
        };
        let rows = usize::try_from(rows).expect("some thousands");
        execute(&self.connection, "SAVEPOINT lists")?;
        match self.chains.runs.advance(&self.connection, rows) {
            Ok(written) => {
                batch.changed |= written;
                Ok(execute(&self.connection, "RELEASE lists")?)
            }
            Err(fatal @ StoreError::Failed(_)) => Err(fatal),
            Err(error) if self.connection.is_autocommit() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the lists of the audit log could not be written; they are tried again with the next entries");
                self.chains.runs.forget();
                execute(&self.connection, "ROLLBACK TO lists")?;
                Ok(execute(&self.connection, "RELEASE lists")?)
            }
        }
    }

    fn finish(&self, batch: &Batch, began: Instant) -> Result<()> {
        if !batch.changed {
            return Ok(execute(&self.connection, "ROLLBACK")?);
        }
        self.meters.transaction_seconds.observe(began.elapsed().as_secs_f64());
        let began = Instant::now();
        self.mark.remove(&self.connection)?;
        let changing = self.remembered.change(&batch.touched);
        execute(&self.connection, "COMMIT")?;
        drop(changing);
        self.mark.is_gone();
        self.meters.commit_seconds.observe(began.elapsed().as_secs_f64());
        // At most `MAX_BATCH`.
        let jobs = u32::try_from(batch.jobs.len()).unwrap_or(u32::MAX);
        self.meters.group_size.observe(f64::from(jobs));
        self.health.commits.fetch_add(1, Ordering::Relaxed);
        self.health.audit_entries.fetch_add(batch.entries, Ordering::Relaxed);
        self.health.note_commit(None);
        Ok(())
    }

    fn undo(&self) {
        self.chains.forget();
        self.chains.runs.forget();
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            self.health.note(&StoreError::Failed(error.to_string().into()));
        }
    }
}

/// By how many bytes the database may grow when the log is copied into it, where there is a limit: what the reserve held is for
/// entries, and a database that grows by more than half of it would leave them none.
fn most_growth(health: &Health) -> Option<u64> {
    health.reserve.is_given_up().then_some(reserve::BYTES / 2)
}

//! The thread that writes.
//!
//! Group commit: the writer takes what is waiting, runs each job in a savepoint of its own inside one transaction,
//! commits once (one fsync for all of them), and then answers. A lone caller waits for nobody. A job that fails rolls
//! back to its savepoint and leaves its neighbours alone; a commit that fails takes all of them with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sealpod_core::Time;
use tokio::sync::oneshot;

use super::super::watch::Change as Moved;
use super::super::watch::Hub;
use super::super::{Meters, Result, StoreError, Topic};
use super::clock::{self, Clock, Step};
use super::heads::Heads;
use super::health::Health;
use super::queue::{Next, Queue};
use super::row::run as execute;
use super::uses::{self, Uses};
use super::{idempotency, log, open};
use crate::audit::{AuditKey, By, Chain, Entry, Head};
use crate::ids::AccountId;

/// Most jobs of one commit, and how long it may go on taking more: what bounds the wait of the first one.
const MAX_BATCH: usize = 512;
const MAX_GATHER: Duration = Duration::from_millis(20);

/// A transaction that a change runs in.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) now: Time,
    key: &'a AuditKey,
    topics: RefCell<Vec<Moved>>,
    heads: RefCell<Vec<Head>>,
    health: &'a Health,
}

impl Tx<'_> {
    /// Appends to a chain, in this transaction; with a change, notes that its request was done.
    pub(crate) fn audit(&self, chain: Chain, entry: Entry, by: &By) -> Result<()> {
        if entry.is_change() {
            if let Some(claim) = &by.once {
                idempotency::claim(self, claim, entry.resource_id)?;
            }
            if let Chain::Organization(id) = chain {
                self.publish(Topic::Changes(id));
            }
        }
        let head = self.append(chain, entry, by)?;
        self.heads.borrow_mut().push(head);
        Ok(())
    }

    /// As [`Tx::audit`], where the entry may yet be taken back.
    pub(super) fn append(&self, chain: Chain, entry: Entry, by: &By) -> Result<Head> {
        let appended = log::append(self.conn, self.key, self.now, chain, entry, by);
        self.health.note_audit(&appended);
        appended
    }

    /// Wakes who watches this, once it is committed.
    pub(crate) fn publish(&self, change: impl Into<Moved>) {
        self.topics.borrow_mut().push(change.into());
    }
}

pub(super) trait WriteJob: Send {
    /// Does the change and keeps the answer; an error is to roll it back.
    fn run(&mut self, tx: &Tx<'_>) -> Result<()>;
    /// Answers; an error of the commit takes the place of a success.
    fn answer(self: Box<Self>, committed: &Result<()>);
}

pub(super) struct Change<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Change<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T>>) -> Self {
        Self {
            work: Some(work),
            result: None,
            reply,
        }
    }
}

impl<T: Send, F: FnOnce(&Tx<'_>) -> Result<T> + Send> WriteJob for Change<T, F> {
    fn run(&mut self, tx: &Tx<'_>) -> Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // A panic is a defect of one use case; its savepoint is rolled back like that of any error.
        let result = catch_unwind(AssertUnwindSafe(|| work(tx)))
            .unwrap_or_else(|_| Err(StoreError::Internal("a change panicked".into())));
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: &Result<()>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) | (Err(_), Some(result @ Err(_))) => result,
            (Ok(()), None) => Err(StoreError::Internal("a change was not run".into())),
            (Err(error), _) => Err(error.clone()),
        };
        // Whoever asked may have gone; the change stands all the same.
        self.reply.send(result).ok();
    }
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    /// Held for as long as this process may write.
    pub(super) lock: File,
    pub(super) jobs: Arc<Queue<Box<dyn WriteJob>>>,
    pub(super) key: AuditKey,
    pub(super) health: Arc<Health>,
    pub(super) hub: Arc<Hub>,
    pub(super) uses: Arc<Uses>,
    pub(super) clock: Arc<Clock>,
    pub(super) heads: Arc<Heads>,
    pub(super) meters: Meters,
}

/// What a transaction has gathered.
#[derive(Default)]
struct Batch {
    jobs: Vec<Box<dyn WriteJob>>,
    topics: Vec<Moved>,
    /// Ends of chains, as its jobs leave them one after the other.
    heads: Vec<Head>,
    /// Whether anything in it is to be committed.
    changed: bool,
}

impl Writer {
    pub(super) fn run(self) {
        loop {
            match self.jobs.next(Some(self.uses.due())) {
                Next::Item(job) => self.batch(Some(job), false),
                Next::Late => self.batch(None, false),
                Next::Closed => break,
            }
        }
        self.batch(None, true);
        let Self {
            connection,
            lock,
            health,
            ..
        } = self;
        // After a fault the files stay as they are: whatever came of it is found out when they are opened next.
        if health.check().is_ok() {
            open::close(connection);
        } else {
            drop(connection);
        }
        drop(lock);
    }

    fn batch(&self, first: Option<Box<dyn WriteJob>>, last: bool) {
        let uses = self.uses.take(last);
        let step = self.clock.step(uses.is_some());
        let uses = uses.unwrap_or_default();
        if first.is_none() && uses.is_empty() && step.is_none() {
            return;
        }
        let mut batch = Batch::default();
        let result = match self.begin().and_then(|()| self.write_clock(step, &mut batch)) {
            Ok(()) => self
                .gather(first, &mut batch)
                .and_then(|()| self.write_uses(&uses, &mut batch))
                .and_then(|()| self.finish(&batch)),
            Err(error) => {
                batch.jobs.extend(first);
                Err(error)
            }
        };
        if let Err(error) = &result {
            self.undo();
            self.health.note(error);
            self.health.note_commit(Some(error));
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
        if let Err(error) = self.health.wal.tend(&self.connection) {
            self.health.note(&error.into());
        }
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
        execute(&self.connection, "SAVEPOINT job")?;
        let tx = Tx {
            conn: &self.connection,
            now: Time::now(),
            key: &self.key,
            topics: RefCell::default(),
            heads: RefCell::default(),
            health: &self.health,
        };
        match job.run(&tx) {
            Ok(()) => {
                execute(&self.connection, "RELEASE job")?;
                batch.changed = true;
                batch.heads.append(&mut tx.heads.into_inner());
                for topic in tx.topics.into_inner() {
                    if !batch.topics.contains(&topic) {
                        batch.topics.push(topic);
                    }
                }
                Ok(())
            }
            Err(fatal @ StoreError::Failed(_)) => Err(fatal),
            // A full disk, for one, makes SQLite roll back all of the transaction.
            Err(error) if self.connection.is_autocommit() => Err(error),
            Err(error) => {
                if error == StoreError::DiskFull {
                    self.health.note_commit(Some(&error));
                }
                execute(&self.connection, "ROLLBACK TO job")?;
                Ok(execute(&self.connection, "RELEASE job")?)
            }
        }
    }

    /// Before the jobs, so that what they make is judged by the clock as it is from here on.
    fn write_clock(&self, step: Option<Step>, batch: &mut Batch) -> Result<()> {
        let Some(step) = step else { return Ok(()) };
        batch.changed = true;
        clock::write(&self.connection, step)
    }

    fn write_uses(&self, uses: &HashMap<AccountId, Time>, batch: &mut Batch) -> Result<()> {
        batch.changed |= !uses.is_empty();
        uses::write(&self.connection, uses)
    }

    fn finish(&self, batch: &Batch) -> Result<()> {
        if !batch.changed {
            return Ok(execute(&self.connection, "ROLLBACK")?);
        }
        let began = Instant::now();
        execute(&self.connection, "COMMIT")?;
        self.meters.commit_seconds.observe(began.elapsed().as_secs_f64());
        // At most `MAX_BATCH`.
        let jobs = u32::try_from(batch.jobs.len()).unwrap_or(u32::MAX);
        self.meters.group_size.observe(f64::from(jobs));
        self.health.commits.fetch_add(1, Ordering::Relaxed);
        let entries = u64::try_from(batch.heads.len()).unwrap_or(u64::MAX);
        self.health.audit_entries.fetch_add(entries, Ordering::Relaxed);
        self.health.note_commit(None);
        Ok(())
    }

    fn undo(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK")
        {
            self.health.note(&StoreError::Failed(error.to_string().into()));
        }
    }
}

//! The threads that read, each with a connection that cannot write.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use rusqlite::Connection;
use sealpod_core::Time;
use tokio::sync::oneshot;

use super::super::{Result, StoreError};
use super::health::Health;
use super::patience::Patience;
use super::queue::{Next, Queue};
use super::row::run as execute;

/// One state of the database, at one instant.
pub(crate) struct View<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) now: Time,
    abandoned: &'a dyn Fn() -> bool,
    patience: Option<&'a Patience>,
}

impl View<'_> {
    /// A look that nobody gives up waiting for.
    #[cfg(test)]
    pub(super) fn look<T>(conn: &Connection, work: impl FnOnce(&View<'_>) -> T) -> T {
        work(&View {
            conn,
            now: Time::now(),
            abandoned: &|| false,
            patience: None,
        })
    }

    /// An error once nobody waits for the answer any more, or it takes too long. What can take long asks it at every step: a reader is one of
    /// a few, and the log cannot shrink behind the state that it holds on to.
    pub(crate) fn go_on(&self) -> Result<()> {
        if (self.abandoned)() {
            return Err(StoreError::Internal("whoever asked has gone".into()));
        }
        self.patience.map_or(Ok(()), Patience::check)
    }
}

pub(super) trait ReadJob: Send {
    /// Reads, tells the engine of an error, and answers: whoever hears of a fatal one finds the engine stopped.
    fn run(self: Box<Self>, conn: &Connection, now: Time, health: &Health, patience: &Patience);
    fn refuse(self: Box<Self>, error: StoreError);
}

pub(super) struct Look<T, F> {
    work: F,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Look<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T>>) -> Self {
        Self { work, reply }
    }
}

impl<T: Send, F: FnOnce(&View<'_>) -> Result<T> + Send> ReadJob for Look<T, F> {
    fn run(self: Box<Self>, conn: &Connection, now: Time, health: &Health, patience: &Patience) {
        let Self { work, reply } = *self;
        if reply.is_closed() {
            return;
        }
        let view = View {
            conn,
            now,
            abandoned: &|| reply.is_closed(),
            patience: Some(patience),
        };
        // A panic is a defect of one use case; it must not cost the others their reader.
        let result = catch_unwind(AssertUnwindSafe(|| work(&view)))
            .unwrap_or_else(|_| Err(StoreError::Internal("a read panicked".into())));
        if let Err(error) = &result {
            health.note(error);
        }
        if let Err(StoreError::TooSlow) = &result {
            tracing::warn!("a read of the database took too long and was ended, for the write-ahead log to stay short");
            end(conn, health);
            health.wal.freed();
        }
        // Whoever asked may have gone.
        reply.send(result).ok();
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        self.reply.send(Err(error)).ok();
    }
}

pub(super) fn run(connection: &Connection, jobs: &Queue<Box<dyn ReadJob>>, health: &Health, patience: &Patience) {
    while let Next::Item(job) = jobs.next(None) {
        health.reads.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = health.check().and_then(|()| Ok(execute(connection, "BEGIN")?)) {
            health.note(&error);
            job.refuse(error);
            continue;
        }
        health.busy.fetch_add(1, Ordering::Relaxed);
        patience.begin();
        job.run(connection, Time::now(), health, patience);
        patience.end();
        health.busy.fetch_sub(1, Ordering::Relaxed);
        end(connection, health);
    }
}

fn end(connection: &Connection, health: &Health) {
    // An error can have ended the transaction already.
    if !connection.is_autocommit()
        && let Err(error) = execute(connection, "ROLLBACK")
    {
        health.note(&error.into());
    }
}

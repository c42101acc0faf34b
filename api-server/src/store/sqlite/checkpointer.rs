//! The thread that copies the log into the database while others go on writing to it.
//!
//! Most of what a copy takes is the flush of the database's file, for which nobody has to wait. What was written meanwhile is
//! left to the writer, which alone can have the log begin anew.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::super::{OpenError, Result, StoreError};
use super::health::Health;
use super::open;
use super::threads;
use super::wal::{Log, checkpoint};

/// Pages in memory, in KiB: it reads none.
const CACHE: u32 = 64;

/// Ends with its thread when it is dropped.
pub(super) struct Checkpointer {
    /// Asks for one pass.
    asks: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// `database`: the file at `path`. Whoever closes one that is open twice takes the locks of this process on it away, by
    /// which other programs know that it is in use: so this one must not be closed before the last connection.
    pub(super) fn begin(
        path: &Path,
        database: Arc<File>,
        health: &Arc<Health>,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> Result<Self, OpenError> {
        let connection = open::connect(path, CACHE)?;
        let (asks, asked) = sync_channel(1);
        let health = Arc::clone(health);
        let run = move || {
            for () in asked {
                pass(&connection, &database, &health);
            }
        };
        Ok(Self {
            asks: Some(asks),
            thread: Some(threads::spawn(path, "store-log".to_owned(), run, on_panic)?),
        })
    }

    /// Has as much copied as nobody's read stands in the way of.
    pub(super) fn ask(&self) {
        if let Some(asks) = &self.asks {
            // Nobody takes it only where the thread has panicked, of which everybody knows.
            asks.try_send(()).ok();
        }
    }
}

fn pass(connection: &Connection, database: &File, health: &Health) {
    // After a fault nothing is written any more: a flush that is tried again may say that all is well of what is lost.
    let copied = health.check().and_then(|()| copy(connection, database));
    if let Err(error) = &copied {
        health.note(error);
    }
    // Only now the writer may copy: behind what is known of this pass.
    health.wal.passed(copied.as_ref().ok());
}

/// SQLite flushes what it copied only if nobody has written meanwhile. The rest would be the writer's to wait for, with the
/// last bit.
fn copy(connection: &Connection, database: &File) -> Result<Log> {
    let log = checkpoint(connection, Log::PASSIVE)?;
    let flushed = database.sync_data();
    flushed
        .map_err(|error| StoreError::Failed(format!("disk I/O error: the database is not flushed ({error})").into()))?;
    Ok(log)
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.asks.take());
        threads::join(self.thread.take());
    }
}

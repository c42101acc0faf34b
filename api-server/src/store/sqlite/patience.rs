//! Ends reads that take too long: while one goes on, the log cannot begin anew.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::{Result, StoreError};
use super::wal::Wal;

/// What a read may take while the log is far too long.
const HURRIED: Duration = Duration::from_secs(1);
/// Steps of SQLite's machine between two looks at the time: some tenths of a millisecond.
pub(super) const STEPS: i32 = 10_000;

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

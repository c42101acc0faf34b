//! When accounts were last used: kept in memory, and written along with another commit at most once an interval. Only
//! where nothing else is written all that time does it cost a commit of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sealpod_core::Time;

use super::super::Result;
use super::row::At;
use crate::ids::AccountId;

pub(super) struct Uses {
    interval: Duration,
    inner: Mutex<Inner>,
}

struct Inner {
    /// One entry an account that was used since the last write.
    noted: HashMap<AccountId, Time>,
    written: Instant,
}

impl Uses {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            inner: Mutex::new(Inner {
                noted: HashMap::new(),
                written: Instant::now(),
            }),
        }
    }

    pub(super) fn note(&self, account: AccountId, now: Time) {
        self.with(|inner| inner.noted.insert(account, now));
    }

    /// When they are to be written next.
    pub(super) fn due(&self) -> Instant {
        self.with(|inner| inner.written + self.interval)
    }

    /// What is to be written now; `None` where it is not time yet. It always is where this is the `last` time.
    pub(super) fn take(&self, last: bool) -> Option<HashMap<AccountId, Time>> {
        self.with(|inner| {
            if !last && inner.written.elapsed() < self.interval {
                return None;
            }
            inner.written = Instant::now();
            Some(std::mem::take(&mut inner.noted))
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn write(connection: &Connection, uses: &HashMap<AccountId, Time>) -> Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE service_accounts SET last_used_at = ?2 WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)",
    )?;
    for (account, at) in uses {
        update.execute((account, At(*at)))?;
    }
    Ok(())
}

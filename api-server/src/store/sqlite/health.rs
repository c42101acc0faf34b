//! Whether the engine may go on, and what each error of SQLite means for that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_CONSTRAINT_TRIGGER, SQLITE_IOERR_SHMSIZE};

use super::super::watch::Hub;
use super::super::{Result, State, Stats, StoreError};
use super::quotas;

#[derive(Default)]
pub(super) struct Health {
    /// Who is to find out when it fails.
    hub: Arc<Hub>,
    failed: AtomicBool,
    /// Set once, before `failed`.
    reason: OnceLock<Arc<str>>,
    pub(super) writes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) reads: AtomicU64,
}

impl Health {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, ..Self::default() }
    }

    /// An error, if the engine has failed.
    pub(super) fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            Err(self.closed())
        } else {
            Ok(())
        }
    }

    /// Takes note of an error, for ever if it is a fatal one.
    pub(super) fn note(&self, error: &StoreError) {
        let StoreError::Failed(reason) = error else { return };
        let first = self.reason.set(Arc::clone(reason)).is_ok();
        self.failed.store(true, Ordering::Release);
        if first {
            tracing::error!(%reason, "the database failed; nothing is served from it until a restart");
            self.hub.wake_all();
        }
    }

    /// What callers get once the engine has failed or is closed.
    pub(super) fn closed(&self) -> StoreError {
        let reason = self.reason.get().cloned();
        StoreError::Failed(reason.unwrap_or_else(|| "it is closed".into()))
    }

    pub(super) fn state(&self) -> State {
        match self.reason.get() {
            Some(reason) => State::Failed {
                reason: reason.to_string(),
            },
            None => State::Serving,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            writes: self.writes.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            watchers: 0,
        }
    }
}

/// What an error means. The text names SQLite's message, which quotes SQL but no parameter and so no value.
pub(super) fn classify(error: &rusqlite::Error) -> StoreError {
    let text = || Arc::<str>::from(error.to_string());
    let rusqlite::Error::SqliteFailure(failure, said) = error else {
        return StoreError::Internal(text());
    };
    if failure.extended_code == SQLITE_CONSTRAINT_TRIGGER
        && let Some(refusal) = said.as_deref().and_then(quotas::refused)
    {
        return refusal.into();
    }
    match failure.code {
        // The shared-memory file could not grow: the disk is full there too.
        _ if failure.extended_code == SQLITE_IOERR_SHMSIZE => StoreError::DiskFull,
        ErrorCode::DiskFull => StoreError::DiskFull,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy,
        // A failed fsync may have dropped what it was to write: trying again would answer "stored" for what is lost.
        ErrorCode::SystemIoFailure
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::FileLockingProtocolFailed => StoreError::Failed(text()),
        _ => StoreError::Internal(text()),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn of(code: i32) -> StoreError {
        classify(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn io_errors_and_corruption_are_fatal_and_a_full_disk_is_not() {
        for code in [
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_READONLY,
        ] {
            assert!(matches!(of(code), StoreError::Failed(_)), "{code}");
        }
        assert_eq!(of(ffi::SQLITE_FULL), StoreError::DiskFull);
        assert_eq!(of(SQLITE_IOERR_SHMSIZE), StoreError::DiskFull);
        assert_eq!(of(ffi::SQLITE_BUSY), StoreError::Busy);
        assert!(matches!(of(ffi::SQLITE_CONSTRAINT_UNIQUE), StoreError::Internal(_)));
    }

    #[test]
    fn the_first_reason_stays() {
        let health = Health::default();
        health.note(&StoreError::DiskFull);
        assert!(health.check().is_ok());
        health.note(&StoreError::Failed("first".into()));
        health.note(&StoreError::Failed("second".into()));
        assert_eq!(health.check(), Err(StoreError::Failed("first".into())));
        assert_eq!(
            health.state(),
            State::Failed {
                reason: "first".to_owned()
            }
        );
    }
}

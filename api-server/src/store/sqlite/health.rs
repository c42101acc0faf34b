//! Whether the engine may go on, and what each error of SQLite means for that.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_CONSTRAINT_TRIGGER, SQLITE_IOERR_SHMSIZE};

use super::super::watch::Hub;
use super::super::{Result, Sizes, State, Stats, StoreError, Trouble};
use super::files::{Volume, beside, folder_of};
use super::place::Lost;
use super::quotas;
use super::reserve::Reserve;
use super::row::run as execute;
use super::tx::Tx;
use super::wal::Wal;
use crate::audit::{By, Chain, Entry, Head, Kind, Verb};

pub(super) struct Health {
    /// Who is to find out when it fails.
    hub: Arc<Hub>,
    failed: AtomicBool,
    /// Set once, before `failed`.
    fault: OnceLock<Fault>,
    /// Whether there was another one behind the first.
    has_more: AtomicBool,
    pub(super) writes: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) audit_entries: AtomicU64,
    pub(super) wal: Arc<Wal>,
    pub(super) reserve: Reserve,
    /// Readers at work.
    pub(super) busy: AtomicUsize,
    /// Whether there is anything in `trouble`: what succeeds looks here first.
    troubled: AtomicBool,
    trouble: Mutex<Trouble>,
}

struct Fault {
    reason: Arc<str>,
    /// The files that are open are whole.
    is_log_lost: bool,
}

impl Health {
    /// Of the database at this path.
    pub(super) fn new(hub: Arc<Hub>, path: &Path) -> Self {
        Self {
            hub,
            failed: AtomicBool::default(),
            fault: OnceLock::new(),
            has_more: AtomicBool::default(),
            writes: AtomicU64::default(),
            commits: AtomicU64::default(),
            reads: AtomicU64::default(),
            audit_entries: AtomicU64::default(),
            wal: Arc::default(),
            reserve: Reserve::of(path),
            busy: AtomicUsize::default(),
            troubled: AtomicBool::default(),
            trouble: Mutex::default(),
        }
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
        self.note_fault(error, false);
    }

    /// As [`Health::note`], of files that have lost their names.
    pub(super) fn note_lost(&self, lost: &Lost) {
        self.note_fault(&lost.into(), matches!(lost, Lost::Log(_)));
    }

    /// Whether all that is wrong is that the log has lost its name: what is open is as good as before.
    pub(super) fn is_log_lost_only(&self) -> bool {
        self.fault.get().is_some_and(|fault| fault.is_log_lost) && !self.has_more.load(Ordering::Acquire)
    }

    fn note_fault(&self, error: &StoreError, is_log_lost: bool) {
        let StoreError::Failed(reason) = error else { return };
        let fault = Fault {
            reason: Arc::clone(reason),
            is_log_lost,
        };
        let first = self.fault.set(fault).is_ok();
        // Whoever is told of the first one notes it again.
        if self.fault.get().is_some_and(|known| known.reason != *reason) {
            self.has_more.store(true, Ordering::Release);
        }
        self.failed.store(true, Ordering::Release);
        if first {
            tracing::error!(%reason, "the database failed; nothing is served from it until a restart");
            self.hub.wake_all();
        }
    }

    /// What became of a transaction as a whole. While the reserve is given up, one that went well says nothing of changes.
    pub(super) fn note_commit(&self, error: Option<&StoreError>) {
        if error.is_some() || !self.reserve.is_given_up() {
            self.keep(error, |trouble| &mut trouble.commit);
        }
        if error.is_none() {
            self.keep(None, |trouble| &mut trouble.record);
        }
    }

    /// The disk had no room for a transaction: there is some where a reserve can be given up.
    pub(super) fn make_room(&self) {
        if !self.reserve.give_up() {
            self.keep(Some(&StoreError::DiskFull), |trouble| &mut trouble.record);
        }
    }

    /// Keeps the reserve from now on.
    pub(super) fn keep_reserve(&self) {
        self.reserve.keep();
        self.note_reserve();
    }

    /// Makes it where it is not whole.
    pub(super) fn refill_reserve(&self) {
        self.reserve.refill();
        self.note_reserve();
    }

    fn note_reserve(&self) {
        if self.reserve.is_given_up() {
            self.note_commit(Some(&StoreError::DiskFull));
        }
    }

    /// What became of writing an audit entry; a full disk is the commit's trouble.
    pub(super) fn note_audit(&self, written: &Result<Head>) {
        match written {
            Err(StoreError::DiskFull) => {}
            Err(error) => self.keep(Some(error), |trouble| &mut trouble.audit),
            Ok(_) => self.keep(None, |trouble| &mut trouble.audit),
        }
    }

    fn keep(&self, error: Option<&StoreError>, part: impl FnOnce(&mut Trouble) -> &mut Option<StoreError>) {
        if error.is_none() && !self.troubled.load(Ordering::Acquire) {
            return;
        }
        let mut trouble = self.lock();
        *part(&mut trouble) = error.cloned();
        self.troubled.store(!trouble.is_none(), Ordering::Release);
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Trouble> {
        // Nothing that runs under this lock can panic half way.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What callers get once the engine has failed or is closed.
    pub(super) fn closed(&self) -> StoreError {
        let reason = self.fault.get().map(|fault| Arc::clone(&fault.reason));
        StoreError::Failed(reason.unwrap_or_else(|| "it is closed".into()))
    }

    pub(super) fn state(&self) -> State {
        match self.fault.get() {
            Some(fault) => State::Failed {
                reason: fault.reason.to_string(),
            },
            None => State::Serving,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            writes: self.writes.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            audit_entries: self.audit_entries.load(Ordering::Relaxed),
            busy_readers: self.busy.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

/// Writes an audit entry and takes it back, and writes a page of the database as it is. What comes of both is noted
/// where it happens.
pub(in super::super) fn try_out(tx: &Tx<'_>) -> Result<()> {
    execute(tx.conn, "SAVEPOINT trial")?;
    let entry = Entry::new(Kind::Key, Verb::Read);
    drop(tx.append(Chain::Instance, entry, &By::system("probe")));
    tx.roll_back_to("ROLLBACK TO trial")?;
    execute(tx.conn, "RELEASE trial")?;
    tx.conn
        .prepare_cached("UPDATE meta SET value = value WHERE name = 'epoch'")?
        .execute([])?;
    Ok(())
}

/// What stands on the disk at `path` and beside it.
pub(super) fn sizes(path: &Path) -> std::io::Result<Sizes> {
    let length = |path: &Path| std::fs::metadata(path).map(|file| file.len());
    let Volume { usable, available, .. } = Volume::of(path)?;
    Ok(Sizes {
        database: length(path)?,
        // There is none between the first start and the first write.
        wal: length(&beside(path, "-wal")).unwrap_or(0),
        volume: usable,
        available,
    })
}

/// What an error means. The text names SQLite's message, which quotes SQL but no parameter and so no value.
pub(super) fn classify(error: &rusqlite::Error) -> StoreError {
    FILE.with(|file| classify_of(error, file.get().map(PathBuf::as_path)))
}

/// As [`classify`], where the file is known.
pub(super) fn classify_of(error: &rusqlite::Error, database: Option<&Path>) -> StoreError {
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
        // The shared-memory file could not grow, for whatever reason.
        _ if failure.extended_code == SQLITE_IOERR_SHMSIZE && has_no_room(database) => StoreError::DiskFull,
        ErrorCode::DiskFull => StoreError::DiskFull,
        ErrorCode::OperationInterrupted => StoreError::TooSlow,
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

thread_local! {
    /// The database that this thread works on.
    static FILE: OnceCell<PathBuf> = const { OnceCell::new() };
}

/// This thread works on that database, and on no other.
pub(super) fn work_on(database: PathBuf) {
    FILE.with(|file| drop(file.set(database)));
}

/// Less than the shared-memory file grows by at a time, which is 32 KiB, and what a file system takes for itself.
const NO_ROOM: u64 = 128 * 1024;

/// Whether the call that failed last on this thread did so for want of room: SQLite does not say. Its number may have been
/// overwritten since, so the volume is asked too.
fn has_no_room(database: Option<&Path>) -> bool {
    let number = std::io::Error::last_os_error();
    let volume = || Volume::of(folder_of(database?)).ok();
    number.kind() == std::io::ErrorKind::StorageFull || volume().is_some_and(|volume| volume.available < NO_ROOM)
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
            // On a disk with room.
            SQLITE_IOERR_SHMSIZE,
        ] {
            assert!(matches!(of(code), StoreError::Failed(_)), "{code}");
        }
        assert_eq!(of(ffi::SQLITE_FULL), StoreError::DiskFull);
        assert_eq!(of(ffi::SQLITE_BUSY), StoreError::Busy);
        assert_eq!(of(ffi::SQLITE_INTERRUPT), StoreError::TooSlow);
        assert!(matches!(of(ffi::SQLITE_CONSTRAINT_UNIQUE), StoreError::Internal(_)));
    }

    #[test]
    fn a_log_that_is_lost_is_worth_saving_unless_anything_else_went_wrong() {
        let lost = Lost::Log("/nowhere/sealpod.db-wal".into());
        let broken = StoreError::Failed("disk I/O error".into());
        let health = || Health::new(Arc::default(), Path::new("/nowhere/sealpod.db"));
        let (alone, before, behind, database) = (health(), health(), health(), health());
        assert!(!alone.is_log_lost_only());
        alone.note_lost(&lost);
        alone.note(&alone.closed());
        assert!(alone.is_log_lost_only());
        before.note(&broken);
        before.note_lost(&lost);
        behind.note_lost(&lost);
        behind.note(&broken);
        database.note_lost(&Lost::Database("/nowhere/sealpod.db".into()));
        for health in [before, behind, database] {
            assert!(!health.is_log_lost_only(), "{:?}", health.state());
        }
    }

    #[test]
    fn the_first_reason_stays() {
        let health = Health::new(Arc::default(), Path::new("/nowhere/sealpod.db"));
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

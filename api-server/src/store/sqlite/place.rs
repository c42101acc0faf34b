//! Whether the files that are open are those that a restart would open. One that was moved away or replaced can be
//! written to as before, and whatever is, is gone once it is closed. Where it is the log alone, what it has can still be
//! copied into the database.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::StoreError;
use super::files::beside;
use super::wal::{Log, checkpoint};

/// Device and number of a file. Nobody else gets those of one that is open.
type Inode = (u64, u64);

pub(super) struct Place {
    database: PathBuf,
    log: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    database: Inode,
    /// From when it was first there.
    log: Option<Inode>,
    /// How often in a row something else was there.
    misses: u32,
}

/// In a row, so that nothing that is put back at once stops a server.
const MISSES: u32 = 2;
/// How often the log is tried to be copied, each time for as long as another program's lock is waited for: one that makes a
/// backup is done by then.
const TRIES: u32 = 12;

/// What was moved away or replaced.
pub(super) enum Lost {
    Database(PathBuf),
    /// The database is where it was.
    Log(PathBuf),
}

impl From<&Lost> for StoreError {
    fn from(lost: &Lost) -> Self {
        let (path, rest) = match lost {
            Lost::Database(path) => (
                path,
                "what it stores there would be lost; put the database back together with the -wal that was beside it, and \
                 start again",
            ),
            Lost::Log(path) => (
                path,
                "nothing more is written; what it had is copied into the database as the server ends, see its last lines",
            ),
        };
        let path = path.display();
        Self::Failed(format!("{path} was moved away or replaced while the server had it open, and {rest}").into())
    }
}

impl Place {
    /// Of the database at this path, whose file is open as `opened`.
    pub(super) fn of(path: &Path, opened: &fs::File) -> io::Result<Self> {
        let metadata = opened.metadata()?;
        let log = beside(path, "-wal");
        let seen = Seen {
            database: (metadata.dev(), metadata.ino()),
            log: inode(&log).ok().flatten(),
            misses: 0,
        };
        Ok(Self {
            database: path.to_owned(),
            log,
            seen: Mutex::new(seen),
        })
    }

    /// Looks; answers what has lost its name for good, which is fatal.
    pub(super) fn look(&self) -> Option<Lost> {
        self.lost_for(MISSES)
    }

    /// As [`Place::look`], where something went wrong already.
    pub(super) fn look_now(&self) -> Option<Lost> {
        self.lost_for(1)
    }

    fn lost_for(&self, misses: u32) -> Option<Lost> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let log = inode(&self.log);
        if seen.log.is_none() {
            seen.log = log.as_ref().ok().copied().flatten();
        }
        // What cannot be looked at may be there.
        let is_lost =
            |known: Inode, found: &io::Result<Option<Inode>>| found.as_ref().is_ok_and(|found| *found != Some(known));
        let lost = if is_lost(seen.database, &inode(&self.database)) {
            Lost::Database(self.database.clone())
        } else if seen.log.is_some_and(|known| is_lost(known, &log)) {
            Lost::Log(self.log.clone())
        } else {
            seen.misses = 0;
            return None;
        };
        seen.misses += 1;
        (seen.misses >= misses).then_some(lost)
    }

    /// Copies a log that has lost its name into the database, by what is open of both, and says what came of it. Nobody of this
    /// process reads any more.
    pub(super) fn save(&self, connection: &Connection) {
        let (log, database) = (self.log.display(), self.database.display());
        match copy_all(connection) {
            Ok(true) => {
                tracing::warn!(
                    "everything that {log} had is in {database} now; leave that file where it is, and start again"
                );
                self.set_aside();
            }
            Ok(false) => tracing::error!(
                "{log} could not be saved, another program reads from {database}; put that file back beside it before anything is started"
            ),
            Err(error) => tracing::error!(
                %error,
                "{log} could not be saved; put that file back beside {database} before anything is started, or restore a backup"
            ),
        }
    }

    /// What has the log's name by now would come over the database at the next start.
    fn set_aside(&self) {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).log;
        let other = fs::metadata(&self.log).ok().filter(|file| file.len() > 0);
        if other.is_none_or(|other| Some((other.dev(), other.ino())) == known) {
            return;
        }
        let aside = beside(&self.log, ".other");
        let (from, to) = (self.log.display(), aside.display());
        match renameat_with(CWD, &self.log, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => tracing::warn!("what stood at {from} instead of it is not its log, and was moved to {to}"),
            Err(error) => {
                tracing::error!(%error, "what stands at {from} is not its log; move it away before anything is started");
            }
        }
    }
}

/// Whether all of the log is in the database.
fn copy_all(connection: &Connection) -> rusqlite::Result<bool> {
    for _ in 0..TRIES {
        if checkpoint(connection, Log::TRUNCATE)?.is_copied() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `None` where nothing stands there.
fn inode(path: &Path) -> io::Result<Option<Inode>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_put_back_at_once_is_no_fault_and_what_stays_away_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (database, log) = (path("sealpod.db"), path("sealpod.db-wal"));
        let opened = File::create(&database).unwrap();
        let place = Place::of(&database, &opened).unwrap();
        assert!(place.look().is_none());
        // The log is there from the first write on.
        let _open = File::create(&log).unwrap();
        for file in [&database, &log] {
            for _ in 0..2 {
                assert!(place.look().is_none());
                fs::rename(file, path("away")).unwrap();
                assert!(place.look().is_none());
                fs::rename(path("away"), file).unwrap();
                assert!(place.look().is_none());
            }
            fs::rename(file, path("away")).unwrap();
            fs::write(file, "another one").unwrap();
            assert!(place.look().is_none());
            let said = StoreError::from(&place.look().unwrap()).to_string();
            let advice = if *file == log {
                "copied into the database"
            } else {
                "put the database back"
            };
            assert!(said.contains(file.to_str().unwrap()) && said.contains(advice), "{said}");
            fs::rename(path("away"), file).unwrap();
        }
        assert!(place.look().is_none());
    }
}

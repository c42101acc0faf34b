//! Whether the files that are open are those that a restart would open. One that was moved away or replaced can be
//! written to as before, and whatever is, is gone once it is closed. Where it is the log alone, what it has can still be
//! copied into the database.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use uuid::Uuid;

use super::super::StoreError;
use super::files::beside;
use super::lost_log;
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
    /// What there was to save has been.
    is_over: bool,
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
            is_over: false,
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
        let mut seen = self.lock();
        let lost = self.seen_lost(&mut seen, misses)?;
        if matches!(lost, Lost::Log(_)) && !seen.is_over {
            // Whoever starts again would do so without it, were this process killed before it is saved.
            self.note("the server did not come to copy it");
        }
        Some(lost)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Whole after every single step.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen_lost(&self, seen: &mut Seen, misses: u32) -> Option<Lost> {
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
    /// process reads any more: a copy for a backup, which would stand in the way, is called off before. What stands under that name goes, whatever came of it; where that or the copy fails, a note keeps
    /// everybody from the database.
    pub(super) fn save(&self, connection: &Connection) {
        let (log, database) = (self.log.display(), self.database.display());
        self.lock().is_over = true;
        let copied = copy_all(connection);
        let is_free = self.set_aside();
        let why = match copied {
            Ok(true) => {
                tracing::warn!(
                    "everything that {log} had is in {database} now; leave that file where it is, and start again"
                );
                if is_free {
                    return lost_log::forget(&self.database);
                }
                let what = format!(
                    "what stands at {log} is not the log of {database}, and could not be moved away; move it away"
                );
                tracing::error!("{what}, before anything is started");
                return lost_log::note(&self.database, &what);
            }
            Ok(false) => "another program read from the database".to_owned(),
            Err(error) => error.to_string(),
        };
        self.note(&why);
        tracing::error!(
            why,
            "{log} could not be saved; put that file back beside {database} before anything is started, or restore a backup"
        );
    }

    /// That there is something in the log which is nowhere else.
    fn note(&self, why: &str) {
        let (log, database) = (self.log.display(), self.database.display());
        lost_log::note(
            &self.database,
            &format!(
                "{log} was moved away or replaced while a server had it open, and what it had is not all in {database} ({why}); put \
                 that file back under its name, in the place of what stands there; if it is gone for good, restore a backup"
            ),
        );
    }

    /// What has the log's name by now would come over the database at the next start. Whether nothing foreign has it.
    fn set_aside(&self) -> bool {
        let known = self.lock().log;
        let other = fs::metadata(&self.log).ok().filter(|file| file.len() > 0);
        if other.is_none_or(|other| Some((other.dev(), other.ino())) == known) {
            return true;
        }
        let aside = beside(&self.log, ".other");
        // One of an earlier time stays, and not every file system can leave it; nobody has the other name.
        let another = beside(&aside, &format!(".{}", Uuid::now_v7()));
        let moved = match renameat_with(CWD, &self.log, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(aside),
            Err(_) => fs::rename(&self.log, &another).map(|()| another),
        };
        let from = self.log.display();
        match &moved {
            Ok(to) => tracing::warn!(
                "what stood at {from} instead of it is not its log, and was moved to {}",
                to.display()
            ),
            Err(error) => tracing::error!(%error, "what stands at {from} is not its log, and could not be moved away"),
        }
        moved.is_ok()
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

    use super::super::super::Options;
    use super::super::{Engine, open, own_log};
    use super::*;
    use crate::crypto::{Keyring, generate_master_key};

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

    /// A database that somebody has open, with a log that was moved away, and what has its name by then.
    struct Lost {
        folder: tempfile::TempDir,
        connection: Connection,
        place: Place,
    }

    impl Lost {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("sealpod.db");
            let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
            Engine::open(&Options::new(&path), &keyring).unwrap().close();
            let connection = open::connect(&path, 64).unwrap();
            // Waits for nobody.
            connection.busy_timeout(std::time::Duration::ZERO).unwrap();
            let place = Place::of(&path, &File::open(&path).unwrap()).unwrap();
            let change = "INSERT INTO users (id, email, created_at) VALUES (randomblob(16), 'a@example.com', 0)";
            connection.execute_batch(change).unwrap();
            assert!(place.look().is_none());
            let lost = Self {
                folder,
                connection,
                place,
            };
            fs::rename(lost.path("sealpod.db-wal"), lost.path("moved")).unwrap();
            fs::copy(lost.path("moved"), lost.path("sealpod.db-wal")).unwrap();
            lost
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// What somebody is told who opens it.
        fn refused(&self) -> Option<String> {
            let opened = own_log::connect_to_look(&self.path("sealpod.db"));
            opened.err().map(|error| error.to_string())
        }

        fn moved_aside(&self) -> Vec<String> {
            let names = fs::read_dir(self.folder.path()).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.starts_with("sealpod.db-wal.other")).collect()
        }
    }

    #[test]
    fn behind_a_reader_that_stands_in_the_way_nobody_opens_the_database_before_its_log_is_back() {
        let lost = Lost::new();
        let reader = Connection::open(lost.path("sealpod.db")).unwrap();
        // It goes on in the log that it has open.
        fs::rename(lost.path("moved"), lost.path("sealpod.db-wal")).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").unwrap();
        fs::rename(lost.path("sealpod.db-wal"), lost.path("moved")).unwrap();
        fs::write(lost.path("sealpod.db-wal"), "of somebody else").unwrap();
        lost.connection
            .execute_batch("UPDATE users SET email = 'b@example.com'")
            .unwrap();
        lost.place.save(&lost.connection);
        assert_eq!(lost.moved_aside(), ["sealpod.db-wal.other"]);
        let said = lost.refused().expect("it opens without its log");
        for what in [
            "sealpod.db-wal was moved away",
            "another program read",
            "remove ",
            ".lost-log",
        ] {
            assert!(said.contains(what), "{what}: {said}");
        }
        assert!(!lost.path("sealpod.db-wal").exists(), "something was written");
        drop(reader);
        // As the note says.
        fs::rename(lost.path("moved"), lost.path("sealpod.db-wal")).unwrap();
        fs::remove_file(lost.path("sealpod.db.lost-log")).unwrap();
        let opened = own_log::connect_to_look(&lost.path("sealpod.db")).unwrap();
        let email = opened.query_row("SELECT email FROM users", [], |row| row.get::<_, String>(0));
        assert_eq!(email.unwrap(), "b@example.com");
    }

    #[test]
    fn whoever_is_killed_between_the_loss_and_its_end_leaves_a_note() {
        let lost = Lost::new();
        let _ = lost.place.look();
        assert_eq!(lost.refused(), None, "it may be put back at once");
        assert!(lost.place.look().is_some());
        let said = lost.refused().expect("it opens without its log");
        assert!(said.contains("the server did not come to copy it"), "{said}");
        lost.place.save(&lost.connection);
        assert_eq!(lost.refused(), None);
        // Who finds out late says nothing any more.
        assert!(lost.place.look_now().is_some());
        assert_eq!(lost.refused(), None);
    }

    #[test]
    fn what_has_the_name_of_a_lost_log_is_moved_away_each_time() {
        let lost = Lost::new();
        for name in ["sealpod.db-wal.other", "kept"] {
            fs::write(lost.path(name), "of an earlier time").unwrap();
        }
        lost.place.save(&lost.connection);
        let other = lost.moved_aside();
        assert_eq!(other.len(), 2, "{other:?}");
        assert!(!lost.path("sealpod.db-wal").exists());
        let earlier = fs::read(lost.path("sealpod.db-wal.other")).unwrap();
        assert!(earlier == fs::read(lost.path("kept")).unwrap());
        assert_eq!(lost.refused(), None);
    }
}

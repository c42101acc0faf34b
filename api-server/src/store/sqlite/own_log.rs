//! Whether the log beside a database is its own.
//!
//! SQLite replays whatever stands beside a database under the right name. Over a file that was restored and put in the
//! place of another one, that brings pages of the other back: keys that were revoked live again. Two rows of `meta`
//! tell:
//!
//! - the epoch, which only a restore changes, and which is in the file itself before that file has its name;
//! - a mark that a restore leaves. The first change of whoever opens the database takes it away, so a log that has
//!   frames and leaves it there was written to another file, or by a version that does not know the mark. Most logs
//!   have no frame of the epoch's page; this one is for those.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension};
use uuid::Uuid;

use super::super::OpenError;
use super::files::{absolute, log_of};
use super::lost_log;
use super::open::{self, engine_error};
use super::wal::{Log, checkpoint};

/// The row of `meta` that is the mark.
const MARK: &str = "untouched";

/// How often, and with what between, a log has to be found foreign. Whoever runs on the database copies its log into the
/// file meanwhile, and what is read of the file alone can be torn, or older than what is read next.
pub(super) const LOOKS: u32 = 3;
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What tells databases apart.
struct Traits {
    epoch: Option<Vec<u8>>,
    is_marked: bool,
}

/// Connects to the database at this path, which others may use meanwhile; an error where the log beside it was written
/// to another one. Nothing is written.
pub(super) fn connect(path: &Path, cache: u32) -> Result<Connection, OpenError> {
    lost_log::require_none(path)?;
    for _ in 1..LOOKS {
        match look(path, cache) {
            Err(OpenError::ForeignLog { .. } | OpenError::UnmarkedLog { .. }) => std::thread::sleep(PAUSE),
            looked => return looked,
        }
    }
    look(path, cache)
}

/// As [`connect`], to look and change nothing.
pub(super) fn connect_to_look(path: &Path) -> Result<Connection, OpenError> {
    open::to_look(connect(path, open::READER_CACHE)?, path)
}

fn look(path: &Path, cache: u32) -> Result<Connection, OpenError> {
    // What is no database of ours, or is torn without its log, is told by what reads it next.
    let alone = || traits(&open::connect_to_file(&absolute(path).ok()?).ok()?).ok();
    let Some((log, alone)) = log_of(path).and_then(|(log, _)| Some((log, alone()?))) else {
        return open::connect(path, cache);
    };
    let files = || (path.to_owned(), log.clone());
    let foreign = || {
        let (path, log) = files();
        OpenError::ForeignLog { path, log }
    };
    let connection = match open::connect(path, cache) {
        // By itself it could be read: the pages of the log fit into another file.
        Err(OpenError::Engine { source, .. }) if source.downcast_ref().is_some_and(is_of_content) => {
            return Err(foreign());
        }
        connected => connected?,
    };
    let together = match traits(&connection) {
        Err(error) if is_of_content(&error) => return Err(foreign()),
        read => read.map_err(|error| engine_error(path, "cannot read the database", error))?,
    };
    let pages = checkpoint(&connection, Log::NOOP);
    let pages = pages.map_err(|error| engine_error(path, "cannot read the log of the database", error))?;
    if alone.epoch.is_some() && together.epoch != alone.epoch {
        return Err(foreign());
    }
    if alone.is_marked && together.is_marked && pages.has_any() {
        let (path, log) = files();
        return Err(OpenError::UnmarkedLog { path, log });
    }
    Ok(connection)
}

/// An error where there is a log and no database: SQLite would throw it away, with what was answered and is nowhere
/// else. Also where the log is known to be lost.
pub(super) fn require_database(path: &Path) -> Result<(), OpenError> {
    lost_log::require_none(path)?;
    match log_of(path) {
        Some((log, _)) if !path.exists() => Err(OpenError::LogAlone {
            path: path.to_owned(),
            log,
        }),
        _ => Ok(()),
    }
}

/// Marks a database that nobody has opened since it was made.
pub(super) fn mark(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, x'01') ON CONFLICT (name) DO NOTHING";
    connection.execute(sql, [MARK]).map(drop)
}

/// The mark, for the writer, whose first change it has to go with: whoever only looks leaves it for who changes anything.
pub(super) struct Mark {
    is_there: Cell<bool>,
}

impl Mark {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            is_there: Cell::new(traits(connection)?.is_marked),
        })
    }

    /// In the transaction of a change.
    pub(super) fn remove(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.is_there.get() {
            unmark(connection)
        } else {
            Ok(())
        }
    }

    /// That transaction is committed.
    pub(super) fn is_gone(&self) {
        self.is_there.set(false);
    }
}

/// Has to be the first change of whoever opens it.
pub(super) fn unmark(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM meta WHERE name = ?1", [MARK]).map(drop)
}

/// The epoch; none where it is none that this version knows.
pub(super) fn epoch(connection: &Connection) -> rusqlite::Result<Option<Uuid>> {
    let epoch = traits(connection)?.epoch;
    Ok(epoch.and_then(|bytes| Uuid::from_slice(&bytes).ok()))
}

fn traits(connection: &Connection) -> rusqlite::Result<Traits> {
    let row = |name: &str| {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        let value = connection.query_row(sql, [name], |row| row.get::<_, Vec<u8>>(0));
        value.optional()
    };
    Ok(Traits {
        epoch: row("epoch")?,
        is_marked: row(MARK)?.is_some(),
    })
}

/// Whether it is what was read that is wrong, and not the reading.
fn is_of_content(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown)
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::super::{Admit, Options};
    use super::super::Engine;
    use super::super::files::beside;
    use super::*;
    use crate::crypto::{Keyring, generate_master_key};

    /// What a killed server leaves of a change: frames of other pages than the epoch's.
    fn log_with(path: &Path, sql: &str) -> Vec<u8> {
        let connection = open::connect(path, 64).unwrap();
        connection.execute_batch(sql).unwrap();
        std::fs::read(beside(path, "-wal")).unwrap()
    }

    /// Two databases with the same pages, which are one until something is written to either.
    fn alike(folder: &tempfile::TempDir) -> [PathBuf; 2] {
        let paths = ["here.db", "there.db"].map(|name| folder.path().join(name));
        let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
        Engine::open(&Options::new(&paths[0]), &keyring).unwrap().close();
        let connection = open::connect(&paths[0], 64).unwrap();
        mark(&connection).unwrap();
        open::close(connection).unwrap();
        std::fs::copy(&paths[0], &paths[1]).unwrap();
        paths
    }

    const CHANGE: &str = "INSERT INTO users (id, email, created_at) VALUES (randomblob(16), 'a@example.com', 0)";

    #[test]
    fn a_log_without_the_epochs_page_is_known_by_the_mark_that_it_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let [here, there] = alike(&folder);
        let log = log_with(&there, &format!("DELETE FROM meta WHERE name = '{MARK}'; {CHANGE}"));
        // Its own, which begins with the mark.
        connect(&there, 64).unwrap();
        // Of a database whose mark was taken away before.
        let all = std::fs::read(&there).unwrap();
        open::close(open::connect(&there, 64).unwrap()).unwrap();
        assert!(std::fs::read(&there).unwrap() != all, "its log was not copied");
        let foreign = log_with(&there, "UPDATE users SET email = 'b@example.com'");
        for (log, is_foreign) in [(&foreign, true), (&log, false)] {
            std::fs::write(beside(&here, "-wal"), log).unwrap();
            let before = std::fs::read(&here).unwrap();
            let opened = connect(&here, 64);
            let is_refused = matches!(opened, Err(OpenError::UnmarkedLog { .. }));
            assert_eq!(is_refused, is_foreign, "{:?}", opened.err());
            assert!(std::fs::read(&here).unwrap() == before);
        }
    }

    #[test]
    fn a_log_of_another_epoch_is_foreign_and_an_empty_one_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let [here, there] = alike(&folder);
        let other = format!(
            "DELETE FROM meta WHERE name = '{MARK}'; UPDATE meta SET value = randomblob(16) WHERE name = 'epoch'"
        );
        let log = log_with(&there, &other);
        for (log, is_foreign) in [(&log[..], true), (&log[..32], false), (&[], false)] {
            std::fs::write(beside(&here, "-wal"), log).unwrap();
            let is_refused = matches!(connect(&here, 64), Err(OpenError::ForeignLog { .. }));
            assert_eq!(is_refused, is_foreign, "{}", log.len());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn beside_whoever_runs_on_a_marked_database_its_log_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
        let is_marked = |path: &Path| traits(&connect_to_look(path).unwrap()).unwrap().is_marked;
        for admit in [Admit::Current, Admit::Older] {
            let path = folder.path().join(format!("{admit:?}.db"));
            let mut options = Options::new(&path);
            Engine::open(&options, &keyring).unwrap().close();
            let connection = open::connect(&path, 64).unwrap();
            mark(&connection).unwrap();
            open::close(connection).unwrap();
            options.admit = admit;
            let engine = Engine::open(&options, &keyring).unwrap();
            assert_eq!(is_marked(&path), admit == Admit::Current);
            engine.write(|_| Ok(())).await.unwrap();
            assert!(log_of(&path).is_some(), "nothing to tell");
            assert!(!is_marked(&path), "{admit:?}");
            engine.close();
            assert!(!is_marked(&path), "{admit:?}");
        }
    }

    #[test]
    fn a_path_is_read_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let [here, _] = alike(&folder);
        let odd = folder.path().join("a b?mode=memory&x=%41#ü.db");
        std::fs::rename(here, &odd).unwrap();
        assert!(traits(&open::connect_to_file(&odd).unwrap()).unwrap().epoch.is_some());
    }
}

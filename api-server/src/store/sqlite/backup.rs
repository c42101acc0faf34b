//! Copies of the database file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
use rusqlite::{Connection, ErrorCode};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::backup::Facts;
use super::super::{OpenError, Result, StoreError};
use super::compare::has_table;
use super::open::{self, engine_error};
use super::patience::STEPS;
use super::row::{Id, number};
use super::tx::Tx;
use super::{files, log, own_log, rewrap};
use crate::audit::{By, Chain, Entry, Head, Kind, Metadata, Verb};
use crate::crypto::{Keyring, MasterKeyId};

/// Everything that is worth counting; a database of an older schema has not all of these.
const TABLES: [&str; 16] = [
    "organizations",
    "projects",
    "environments",
    "secrets",
    "versions",
    "hidden_versions",
    "configurations",
    "service_accounts",
    "api_keys",
    "acl_rules",
    "users",
    "members",
    "sessions",
    "trash",
    "quotas",
    "audit_entries",
];

/// By how much the log may grow while a copy is made, in bytes: it cannot begin anew before that is done. Eight times what reads
/// are hurried at.
const MOST_LOG: u64 = 512 * 1024 * 1024;

/// The copy is not flushed: most are gone before the disk would have them, and a flush of so much would keep commits waiting.
pub(in super::super) fn copy(from: &Path, into: &Path, end: &CancellationToken) -> Result<(), OpenError> {
    // A long one that somebody left behind is no reason: by a start it is copied into the database behind this.
    let log = files::log_of(from).map_or(0, |(_, bytes)| bytes);
    copy_within(log.saturating_add(MOST_LOG), from, into, end)
}

/// It ends where it would cost who writes meanwhile more than a backup is worth: the log, or what is free on its volume or the
/// copy's. At the `end` it ends as well: for as long as it reads, nobody can copy all of the log.
fn copy_within(most_log: u64, from: &Path, into: &Path, end: &CancellationToken) -> Result<(), OpenError> {
    let connection = own_log::connect(from, open::READER_CACHE)?;
    open::inspect(&connection, from)?;
    let unflushed = connection.pragma_update(None, "synchronous", "OFF");
    unflushed.map_err(|error| engine_error(from, "cannot be copied", error))?;
    // SQLite takes an empty file for none, so that nobody else could ever read this one.
    files::create(into)?;
    let failed = |error| engine_error(from, "cannot copy the database", error);
    let (why, folders) = (
        Arc::new(Mutex::new(None)),
        [from, into].map(|path| files::folder_of(path).to_owned()),
    );
    let (said, database, end) = (Arc::clone(&why), from.to_owned(), end.clone());
    let is_over = move || {
        let log = files::log_of(&database).filter(|(_, bytes)| *bytes > most_log);
        let overgrown = log.map(|(path, bytes)| OpenError::LongLog { path, bytes });
        let ended = || {
            end.is_cancelled()
                .then(|| files::file_error(&database, io::Error::other("the server ends")))
        };
        let over = overgrown
            .or_else(ended)
            .or_else(|| folders.iter().find_map(|folder| files::require_room(folder, 0).err()));
        let is_over = over.is_some();
        *said.lock().unwrap_or_else(PoisonError::into_inner) = over;
        is_over
    };
    connection.progress_handler(STEPS, Some(is_over)).map_err(failed)?;
    let copied = connection.execute("VACUUM INTO ?1", [&*into.to_string_lossy()]);
    copied.map(drop).map_err(|error| {
        let why = why.lock().unwrap_or_else(PoisonError::into_inner).take();
        why.unwrap_or_else(|| failed(error))
    })
}

/// What [`copy`] met in the database at this path where that is fatal to whoever serves it. SQLite does not say of which file a
/// read failed, so one of the copy counts, too: it is in the same folder, and that disk is not to be trusted. What is written
/// is the copy alone, and has other numbers; and of any other file an error names that file's path.
pub(super) fn fault_of_reading(error: &OpenError, database: &Path) -> Option<StoreError> {
    match error {
        OpenError::NotOurs { path } if path == database => Some(StoreError::Failed(error.to_string().into())),
        OpenError::Engine { path, source, .. } if path == database => {
            let Some(rusqlite::Error::SqliteFailure(failure, _)) = source.downcast_ref() else {
                return None;
            };
            let is_of_reading = [SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_CORRUPTFS]
                .contains(&failure.extended_code)
                || matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase);
            is_of_reading.then(|| StoreError::Failed(source.to_string().into()))
        }
        _ => None,
    }
}

/// The master keys that the values in a copy need.
pub(in super::super) fn needed_keys(path: &Path) -> Result<Vec<MasterKeyId>, OpenError> {
    let connection = if files::log_of(path).is_some() {
        open::connect_to_look(path)?
    } else {
        // As one that never changes: otherwise SQLite would put a log beside it.
        open::connect_to_file(path).map_err(|error| engine_error(path, "cannot open the database", error))?
    };
    match open::inspect(&connection, path)? {
        0 => Ok(Vec::new()),
        schema => rewrap::needed(&connection, schema)
            .map_err(|error| engine_error(path, "cannot read which master keys the data needs", error)),
    }
}

/// The epoch by the file alone, whatever is the matter with its log: a restore puts it there, and nothing else changes it. None
/// where it cannot be read, or is in the log still, as that of a database that was made just now.
fn epoch_in_file(path: &Path) -> Option<Uuid> {
    let read = || -> Result<_, OpenError> {
        let failed = |error| engine_error(path, "cannot read the database", error);
        let connection = open::connect_to_file(path).map_err(failed)?;
        match open::inspect(&connection, path)? {
            0 => Ok(None),
            _ => own_log::epoch(&connection).map_err(failed),
        }
    };
    for _ in 1..own_log::LOOKS {
        match read() {
            // Somebody may copy the log into it meanwhile.
            Err(_) => std::thread::sleep(own_log::PAUSE),
            Ok(epoch) => return epoch,
        }
    }
    read().ok().flatten()
}

pub(in super::super) fn epoch_of(path: &Path) -> Result<Uuid, OpenError> {
    let path = &files::absolute(path)?;
    if !path.exists() {
        return Err(OpenError::Absent { path: path.clone() });
    }
    if let Some(epoch) = epoch_in_file(path) {
        return Ok(epoch);
    }
    let connection = own_log::connect_to_look(path)?;
    open::inspect(&connection, path)?;
    own_log::epoch(&connection)
        .map_err(|error| engine_error(path, "cannot read the database", error))?
        .ok_or_else(|| OpenError::Damaged {
            path: path.clone(),
            what: "it has no epoch".to_owned(),
        })
}

pub(in super::super) fn inspect(path: &Path, keyring: &Keyring) -> Result<Facts, OpenError> {
    let connection = open::connect_to_look(path)?;
    let schema = open::inspect(&connection, path)?;
    let damaged = |what: String| OpenError::Damaged {
        path: path.to_owned(),
        what,
    };
    let finding = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let finding = finding.map_err(|error| damaged(format!("it cannot be read ({error})")))?;
    if finding != "ok" {
        return Err(damaged(finding));
    }
    let server = open::read_keys(&connection, path, keyring)?;
    let epoch = server.map_or_else(Uuid::nil, |server| server.epoch);
    let keys = open::check_keys(&connection, path, schema, keyring)?;
    rewrap::open_newest(&connection, keyring).map_err(|error| damaged(error.to_string()))?;
    let read = || -> rusqlite::Result<_> { Ok((counts(&connection)?, heads(&connection)?)) };
    let (counts, heads) = read().map_err(|error| engine_error(path, "cannot read the database", error))?;
    Ok(Facts {
        schema,
        epoch,
        counts,
        heads,
        keys,
    })
}

fn counts(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for table in TABLES {
        if has_table(connection, table)? {
            let rows = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| number(row, 0))?;
            counts.insert(table.to_owned(), rows);
        }
    }
    Ok(counts)
}

fn heads(connection: &Connection) -> rusqlite::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for chain in log::chains(connection)? {
        let end = "SELECT seq, hash FROM audit_entries WHERE chain = ?1 ORDER BY seq DESC LIMIT 1";
        heads.push(connection.query_row(end, [Id(chain.id())], |row| {
            Ok(Head {
                chain,
                seq: number(row, 0)?,
                hash: row.get(1)?,
            })
        })?);
    }
    Ok(heads)
}

pub(in super::super) fn finish_restore(tx: &Tx<'_>, backup: Uuid, keep_keys: bool, by: &By) -> Result<()> {
    let mut ended = vec!["sessions", "login_codes", "login_counters", "idempotency"];
    if !keep_keys {
        ended.push("api_keys");
    }
    let mut count = 0;
    for table in ended {
        count += tx.conn.execute(&format!("DELETE FROM {table}"), [])?;
    }
    tx.conn.execute(
        "UPDATE meta SET value = ?1 WHERE name = 'epoch'",
        [Uuid::now_v7().as_bytes().as_slice()],
    )?;
    own_log::mark(tx.conn)?;
    let entry = Entry::new(Kind::Backup, Verb::Restore)
        .resource(backup, &format!("backup {backup}"))
        .metadata(Metadata {
            count: Some(count as u64),
            ..Metadata::default()
        });
    tx.audit(Chain::Instance, entry, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_ends_where_the_log_becomes_too_long_or_the_server_ends_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copied) = (folder.path().join("sealpod.db"), folder.path().join("copy"));
        files::create(&path).unwrap();
        let connection = open::connect(&path, open::READER_CACHE).unwrap();
        // Enough for more than one look.
        let rows = "PRAGMA application_id = 0x53506f64; PRAGMA journal_mode = WAL; CREATE TABLE rows (n TEXT);
            WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
            INSERT INTO rows SELECT hex(randomblob(20)) FROM n;";
        connection.execute_batch(rows).unwrap();
        let refused = copy_within(0, &path, &copied, &CancellationToken::new()).unwrap_err();
        assert!(
            matches!(&refused, OpenError::LongLog { bytes, .. } if *bytes > 0),
            "{refused}"
        );
        assert_eq!(fault_of_reading(&refused, &path), None);
        let (other, end) = (folder.path().join("other"), CancellationToken::new());
        copy(&path, &other, &end).unwrap();
        assert!(other.metadata().unwrap().len() > 20_000);
        end.cancel();
        let ended = copy(&path, &folder.path().join("late"), &end).unwrap_err();
        assert!(ended.to_string().contains("the server ends"), "{ended}");
        assert_eq!(fault_of_reading(&ended, &path), None);
    }
}

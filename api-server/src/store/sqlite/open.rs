//! Opening the database: the file, the lock, the schema, the server's own keys, in this order, so that nothing is
//! written before all of them are what they should be.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use rusqlite_migration::{M, Migrations};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::{Admit, OpenError, Options};
use super::files::{self, Lock, absolute, beside, create, file_error, lock, narrow_all};
use super::{own_log, reserve, rewrap};
use crate::audit::AuditKey;
use crate::crypto::{Aad, Keyring, MasterKeyId, Pepper, Sealed, random};

/// The SQL of every schema change, oldest first. What was released is never edited.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/0001_initial.sql"),
    include_str!("../../../migrations/0002_people.sql"),
    include_str!("../../../migrations/0003_login.sql"),
    include_str!("../../../migrations/0004_trash.sql"),
    include_str!("../../../migrations/0005_audit_reads.sql"),
    include_str!("../../../migrations/0006_limits.sql"),
    include_str!("../../../migrations/0007_changes.sql"),
    include_str!("../../../migrations/0007_credentials.sql"),
    include_str!("../../../migrations/0008_clock.sql"),
    include_str!("../../../migrations/0009_audit_runs.sql"),
    include_str!("../../../migrations/0010_master_keys.sql"),
    include_str!("../../../migrations/0011_audit_cuts.sql"),
];
/// What they make.
pub(in super::super) const SCHEMA: usize = MIGRATIONS.len();
/// Marks the file as ours: `SPod`.
const APPLICATION_ID: i64 = 0x5350_6f64;
/// How long to wait for another program's lock, such as that of a shell on the database.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// What the file of the log keeps of a burst, in bytes.
pub(super) const KEPT_LOG: i64 = 64 * 1024 * 1024;
/// Pages in memory, in KiB: for the connection that writes, and for each that reads.
const WRITER_CACHE: u32 = 4096;
pub(super) const READER_CACHE: u32 = 1024;
const STATEMENTS: usize = 128;
/// The names of the server's own secrets in `meta`, each sealed.
pub(super) const SERVER_KEYS: [&str; 2] = ["pepper", "audit_key"];

pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) lock: Lock,
    pub(super) server: ServerKeys,
    pub(super) mark: own_log::Mark,
}

/// What the database keeps for the server itself, in `meta`.
pub(super) struct ServerKeys {
    pub(super) epoch: Uuid,
    pub(super) pepper: Pepper,
    pub(super) audit: AuditKey,
}

pub(super) fn open(options: &Options, keyring: &Keyring) -> Result<Opened, OpenError> {
    // 1. One process only: before anything in the file is looked at.
    let path = absolute(&options.path)?;
    if options.admit < Admit::None && !path.exists() {
        return Err(OpenError::Absent { path });
    }
    let lock = lock(&path)?;
    own_log::require_database(&path)?;
    let is_given_up = options.reserve && reserve::make_way(&path).map_err(|source| file_error(&path, source))?;
    let opened = look_and_set_up(options, &path, keyring).inspect_err(|_| {
        // A start that comes to nothing has no use for it. What fails behind this leaves it to the next one.
        if is_given_up {
            reserve::take_back(&path);
        }
    });
    let (writer, server) = opened?;
    let mark = own_log::Mark::read(&writer).map_err(|error| engine_error(&path, "cannot read the database", error))?;
    narrow_all(&path)?;
    let readers = (0..options.readers.max(1)).map(|_| connect_to_look(&path));
    let readers = readers.collect::<Result<Vec<_>, OpenError>>()?;
    Ok(Opened {
        path,
        writer,
        readers,
        lock,
        server,
        mark,
    })
}

/// The connection that writes, to a database that is ours to write to, of the schema of this version.
fn look_and_set_up(options: &Options, path: &Path, keyring: &Keyring) -> Result<(Connection, ServerKeys), OpenError> {
    // 2. Files that only we can read, and a log of its own.
    create(path)?;
    let mut writer = own_log::connect(path, WRITER_CACHE)?;
    let engine = |what| move |error| engine_error(path, what, error);
    // 3. Is it ours, is its schema one that we know, and do the keys open it? Closing does not write either.
    let schema = inspect(&writer, path)?;
    if schema > 0 {
        read_keys(&writer, path, keyring)?;
        check_keys(&writer, path, schema, keyring)?;
    } else if options.admit < Admit::None {
        return Err(OpenError::Absent { path: path.to_owned() });
    }
    // 4. What an upgrade begins with is kept.
    if schema > 0 && schema < SCHEMA {
        prepare_upgrade(options, path, schema)?;
    }
    // 5. From here on it is written to.
    let mode = prepare(&writer, schema == 0).map_err(engine("cannot set up the database"))?;
    if mode != "wal" {
        return Err(OpenError::NoWal { path: path.to_owned() });
    }
    // Whoever only looks leaves the mark for the first change.
    if schema > 0 && options.admit >= Admit::Older {
        own_log::unmark(&writer).map_err(engine("cannot write to the database"))?;
    }
    migrate(&mut writer, path)?;
    make_keys(&mut writer, keyring).map_err(engine("cannot store the server's keys"))?;
    match read_keys(&writer, path, keyring)? {
        Some(server) => Ok((writer, server)),
        None => Err(OpenError::Damaged {
            path: path.to_owned(),
            what: "the server's own keys are gone while data sealed with them is there".to_owned(),
        }),
    }
}

fn prepare_upgrade(options: &Options, path: &Path, schema: usize) -> Result<(), OpenError> {
    if options.admit < Admit::Older {
        return Err(OpenError::Older {
            path: path.to_owned(),
            found: schema,
            known: SCHEMA,
        });
    }
    if options.keep_copy {
        keep_copy(path, schema)
    } else {
        Ok(())
    }
}

/// A copy of the database beside it, as the older version has it, for the way back. One of an upgrade that was not
/// carried out stays until this one is whole and takes its name.
fn keep_copy(path: &Path, schema: usize) -> Result<(), OpenError> {
    let copy = beside(path, &format!(".schema-{schema}"));
    let partial = beside(&copy, ".partial");
    // Of an upgrade that was cut off, and takes the room of this one.
    drop(fs::remove_file(&partial));
    files::require_room_for_copy(path)?;
    let kept = || {
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, &copy)?;
        files::sync_folder(&copy)
    };
    let made = super::backup::copy(path, &partial, &CancellationToken::new())
        .and_then(|()| kept().map_err(|source| file_error(&copy, source)));
    // Its room is what the next start needs, of this version or the older one.
    made.inspect_err(|_| drop(fs::remove_file(&partial)))?;
    tracing::info!(from = schema, to = SCHEMA, copy = %copy.display(), "the database is brought up to date; it was copied before, remove the copy once all is well");
    Ok(())
}

/// Leaves the database in one file. What fails here is made up for when it is opened next: the log has it until it is copied.
pub(super) fn close(connection: Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    // Nothing is left to copy, so closing only takes the empty log away.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.close().map_err(|(_, error)| error)
}

pub(super) fn connect(path: &Path, cache: u32) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let set_up = || -> rusqlite::Result<_> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // No connection copies the log into the database but where its fate is looked at: see `wal`, `close`.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |row| row.get::<_, i64>(0))?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", -i64::from(cache))?;
        Ok(connection)
    };
    set_up().map_err(|error| engine_error(path, "cannot open the database", error))
}

/// A connection that looks and changes nothing.
pub(super) fn connect_to_look(path: &Path) -> Result<Connection, OpenError> {
    to_look(connect(path, READER_CACHE)?, path)
}

pub(super) fn to_look(connection: Connection, path: &Path) -> Result<Connection, OpenError> {
    let narrowed = connection.pragma_update(None, "query_only", true);
    narrowed.map_err(|error| engine_error(path, "cannot set up a connection", error))?;
    Ok(connection)
}

/// Looks at the file alone, as at one that never changes: nothing beside it is read, or made. The path is an absolute
/// one.
pub(super) fn connect_to_file(path: &Path) -> rusqlite::Result<Connection> {
    let mut url = Url::from_file_path(path).map_err(|()| rusqlite::Error::InvalidPath(path.to_owned()))?;
    url.set_query(Some("immutable=1"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(url.as_str(), flags | OpenFlags::SQLITE_OPEN_NOFOLLOW)
}

/// The version of the schema; 0 where there is none yet.
pub(super) fn inspect(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let header = || -> rusqlite::Result<_> {
        Ok((
            number("PRAGMA application_id")?,
            number("PRAGMA user_version")?,
            number("SELECT count(*) FROM sqlite_schema")?,
        ))
    };
    let found = header().map_err(|error| engine_error(path, "cannot read the database", error));
    let (application, schema, objects) = found?;
    let fresh = schema == 0 && objects == 0;
    if application != APPLICATION_ID && !(fresh && application == 0) {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    }
    match usize::try_from(schema) {
        Ok(schema) if schema <= MIGRATIONS.len() => Ok(schema),
        _ => Err(OpenError::Newer {
            path: path.to_owned(),
            found: schema,
            known: MIGRATIONS.len(),
        }),
    }
}

/// Sets what is kept in the file itself, or is for the connection that writes only; answers the journal's mode.
fn prepare(connection: &Connection, fresh: bool) -> rusqlite::Result<String> {
    if fresh {
        // This one only works while the file is empty.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    // What a burst made of the log is given back at the next checkpoint.
    connection.pragma_update_and_check(None, "journal_size_limit", KEPT_LOG, |row| row.get::<_, i64>(0))?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let migrations = Migrations::new(MIGRATIONS.iter().map(|sql| M::up(sql)).collect());
    migrations.to_latest(connection).map_err(|source| OpenError::Engine {
        path: path.to_owned(),
        what: "cannot bring the schema up to date (nothing of it was kept)",
        source: Box::new(source),
    })
}

/// Reads the server's keys, `None` where there are none yet.
pub(super) fn read_keys(
    connection: &Connection,
    path: &Path,
    keyring: &Keyring,
) -> Result<Option<ServerKeys>, OpenError> {
    let damaged = |what: String| OpenError::Damaged {
        path: path.to_owned(),
        what,
    };
    let get = |name: &str| {
        let sql = "SELECT value FROM meta WHERE name = ?1";
        let value = connection
            .query_row(sql, [name], |row| row.get::<_, Vec<u8>>(0))
            .optional();
        value.map_err(|error| damaged(format!("its own settings cannot be read ({error})")))
    };
    let secret = |name: &str, bytes: Vec<u8>| {
        let opened = Sealed::try_from(bytes)
            .map_err(Into::into)
            .and_then(|sealed| keyring.open(&Aad::server_key(name), &sealed))
            .map_err(|error| OpenError::sealed(path, error, keyring.ids().collect()))?;
        let secret = <[u8; 32]>::try_from(opened.as_slice()).map(Zeroizing::new);
        secret.map_err(|_| damaged(format!("its {name} has the wrong length")))
    };
    let (Some(epoch), Some(pepper), Some(audit)) = (get("epoch")?, get("pepper")?, get("audit_key")?) else {
        return Ok(None);
    };
    let epoch = Uuid::from_slice(&epoch).map_err(|_| damaged("its epoch has the wrong length".to_owned()))?;
    Ok(Some(ServerKeys {
        epoch,
        pepper: Pepper::new(&*secret("pepper", pepper)?),
        audit: AuditKey::new(&*secret("audit_key", audit)?),
    }))
}

/// The master keys that the data needs; an error where one is not given.
pub(super) fn check_keys(
    connection: &Connection,
    path: &Path,
    schema: usize,
    keyring: &Keyring,
) -> Result<Vec<MasterKeyId>, OpenError> {
    let needed = rewrap::needed(connection, schema);
    let needed = needed.map_err(|error| engine_error(path, "cannot read which master keys the data needs", error))?;
    let given: Vec<_> = keyring.ids().collect();
    match needed.iter().copied().find(|needed| !given.contains(needed)) {
        Some(needed) => Err(OpenError::WrongMasterKey { needed, given }),
        None => Ok(needed),
    }
}

/// Makes the server's keys for a database that has none and nothing that would need them.
fn make_keys(connection: &mut Connection, keyring: &Keyring) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let used = "SELECT EXISTS (SELECT 1 FROM meta) OR EXISTS (SELECT 1 FROM organizations) OR EXISTS (SELECT 1 FROM audit_entries)";
    if tx.query_row(used, [], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    let insert = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
    tx.execute(insert, ("epoch", Uuid::now_v7().as_bytes().as_slice()))?;
    for name in SERVER_KEYS {
        tx.execute(
            insert,
            (name, keyring.seal(&Aad::server_key(name), random::<32>().as_slice())),
        )?;
    }
    tx.commit()
}

pub(super) fn engine_error(path: &Path, what: &'static str, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) {
        return OpenError::NotOurs { path };
    }
    OpenError::Engine {
        path,
        what,
        source: Box::new(error),
    }
}

/// An empty database with the schema, in memory.
#[cfg(test)]
pub(super) fn migrated() -> Connection {
    let mut connection = Connection::open_in_memory().expect("memory can be opened");
    migrate(&mut connection, Path::new("memory")).expect("the migrations are valid");
    connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_sqlite_has_no_wal_reset_corruption() {
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }

    /// What the first schema could hold: one of each thing, live, deleted, and in something deleted. `#12'` is an id.
    const OF_THE_FIRST_SCHEMA: &str = "
        INSERT INTO organizations VALUES (#01', 'default', 1, 1, NULL);
        INSERT INTO organizations VALUES (#02', 'gone', 1, 1, 5);
        INSERT INTO projects SELECT n, #01', 'shop', 'Shop', NULL, '{}', 1, 1, d
            FROM (SELECT #11' AS n, NULL AS d UNION ALL SELECT #12', 5);
        INSERT INTO projects VALUES (#13', #02', 'shop', 'Shop', NULL, '{}', 1, 1, NULL);
        INSERT INTO environments SELECT n, p, 'prod', 'Prod', '{}', 1, 1, d
            FROM (SELECT #21' AS n, #11' AS p, NULL AS d UNION ALL SELECT #22', #11', 5 UNION ALL SELECT #23', #12', NULL);
        INSERT INTO secrets SELECT n, p, 'db', NULL, 1, 1, d
            FROM (SELECT #31' AS n, #11' AS p, NULL AS d UNION ALL SELECT #32', #11', 5 UNION ALL SELECT #33', #12', NULL);
        INSERT INTO versions SELECT n, s, e, v, 1, NULL, NULL, 1, 'user', NULL,
                'olga', zeroblob(100)
            FROM (SELECT #41' AS n, #31' AS s, #21' AS e, 1 AS v UNION ALL SELECT #42', #31', #21', 2
                UNION ALL SELECT #43', #32', #21', 1 UNION ALL SELECT #44', #33', #23', 1);
        INSERT INTO hidden_versions VALUES
            (#51', #31', #21', 1, 1, 5, 'user', NULL, 'olga');
        INSERT INTO configurations SELECT n, #21', 'LOG', NULL, 1, zeroblob(16), 1, 1, d,
                zeroblob(10)
            FROM (SELECT #61' AS n, NULL AS d UNION ALL SELECT #62', 5);
        INSERT INTO service_accounts VALUES
            (#71', #01', #12', 'ci', '{}', NULL, NULL, 1, 1, NULL);
        INSERT INTO acl_rules VALUES (#81', #01', 'service_account', #71',
            '*', '*', '*', 0, 'read', 1, 1, 5);
        INSERT INTO audit_entries SELECT zeroblob(16), seq, zeroblob(16), at, 'org.create', 'system', NULL, 'system', 'org', NULL,
                NULL, NULL, NULL, 'success', NULL, NULL, NULL, '{}', zeroblob(32)
            FROM (SELECT 1 AS seq, 10 AS at UNION ALL SELECT 2, 9 UNION ALL SELECT 3, 11);";

    #[test]
    fn a_database_of_the_first_schema_keeps_all_it_has() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        Migrations::new(vec![M::up(MIGRATIONS[0])])
            .to_latest(&mut connection)
            .unwrap();
        let ids = |sql: &str| sql.replace('#', &format!("x'{}", "0".repeat(30)));
        connection.execute_batch(&ids(OF_THE_FIRST_SCHEMA)).unwrap();
        migrate(&mut connection, Path::new("memory")).unwrap();

        let mut trash = connection
            .prepare("SELECT kind || ' ' || hex(substr(id, 16)) FROM trash ORDER BY id")
            .unwrap();
        let trash: Vec<String> = trash
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert_eq!(
            trash,
            [
                "project 12",
                "environment 22",
                "secret 32",
                "secret_versions 51",
                "configuration 62"
            ]
        );
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT count(*) FROM hidden_versions WHERE trash_id = id"), 1);
        assert_eq!(number("SELECT count(*) FROM versions"), 4);
        assert_eq!(number("SELECT projects FROM quotas ORDER BY organization_id"), 1);
        assert_eq!(number("SELECT secrets FROM quotas ORDER BY organization_id"), 1);
        assert_eq!(number("SELECT value_bytes FROM quotas ORDER BY organization_id"), 420);
        assert_eq!(number("SELECT sum(seq) FROM audit_clock_steps"), 2);
        assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
        // What the purge of one of them takes off the figures of its organization.
        connection
            .execute(&ids("DELETE FROM versions WHERE secret_id = #33'"), [])
            .unwrap();
        assert_eq!(number("SELECT value_bytes FROM quotas ORDER BY organization_id"), 320);
    }

    #[test]
    fn the_migrations_are_valid() {
        let sql = "PRAGMA user_version";
        let schema: i64 = migrated().query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(schema), Ok(MIGRATIONS.len()));
    }
}

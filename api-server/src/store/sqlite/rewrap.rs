//! The master keys that values need, found by the indexes on the ids in their envelopes.

use std::time::{Duration, Instant};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};

use super::super::rewrap::{KeyNeeds, Piece, Place, Shelf, Wrapped};
use super::super::{Object, Result, StoreError};
use super::open::SERVER_KEYS;
use super::reader::View;
use super::row::{At, number, optional_time};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::crypto::{Aad, Keyring, MasterKeyId, Sealed};
use crate::ids::{ConfigurationId, EnvironmentId, OrganizationId, ProjectId, RevisionId, SecretId, VersionId};

/// The key that seals, in `meta`.
const CURRENT: &str = "master_key";
/// Most values, and bytes of them, of a piece; and the time that one transaction may take to store what became of them.
const PIECE: usize = 256;
const PIECE_BYTES: usize = 1024 * 1024;
const MAX_TIME: Duration = Duration::from_millis(5);
/// The id of the key in an envelope, as the indexes have it.
const KEY: &str = "substr(sealed, 2, 8)";
/// The schema that first kept answers.
const ANSWERS_SINCE: usize = 7;
const TABLES: [&str; 3] = ["versions", "configurations", "idempotency"];

impl ToSql for MasterKeyId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for MasterKeyId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        Self::from_bytes(bytes).ok_or(FromSqlError::InvalidBlobSize {
            expected_size: 8,
            blob_size: bytes.len(),
        })
    }
}

/// Every master key that something in a database of this schema needs. It asks the indexes; in one that is older than these
/// it reads the tables.
pub(super) fn needed(conn: &Connection, schema: usize) -> rusqlite::Result<Vec<MasterKeyId>> {
    let mut found = Vec::new();
    let tables = if schema < ANSWERS_SINCE { 2 } else { TABLES.len() };
    for table in &TABLES[..tables] {
        // From one key to the next: a look at each, however many values it has.
        let sql = format!("SELECT min({KEY}) FROM {table} WHERE sealed IS NOT NULL AND {KEY} > ?1");
        let mut next = conn.prepare_cached(&sql)?;
        let mut last = Vec::new();
        while let Some(id) = next.query_row([&last], |row| row.get::<_, Option<MasterKeyId>>(0))? {
            last = id.as_bytes().to_vec();
            found.push(id);
        }
    }
    for name in SERVER_KEYS {
        found.extend(server_key(conn, name)?.map(|sealed| sealed.key_id()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn server_key(conn: &Connection, name: &str) -> rusqlite::Result<Option<Sealed>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(in super::super) fn needs(conn: &Connection) -> Result<Vec<KeyNeeds>> {
    let mut ids = needed(conn, usize::MAX)?;
    let mut known = conn.prepare_cached("SELECT id FROM master_keys WHERE id > x''")?;
    for id in known.query_map([], |row| row.get(0))? {
        ids.push(id?);
    }
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| needs_of(conn, id)).collect()
}

fn needs_of(conn: &Connection, id: MasterKeyId) -> Result<KeyNeeds> {
    let count = |table: &str| -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {table} WHERE sealed IS NOT NULL AND {KEY} = ?1");
        Ok(conn.prepare_cached(&sql)?.query_row([id], |row| number(row, 0))?)
    };
    let [versions, configurations, answers] = TABLES;
    let mut server_keys = 0;
    for name in SERVER_KEYS {
        server_keys += u64::from(server_key(conn, name)?.is_some_and(|sealed| sealed.key_id() == id));
    }
    let (first_used_at, retired_at) = conn
        .prepare_cached("SELECT first_used_at, retired_at FROM master_keys WHERE id = ?1")?
        .query_row([id], |row| Ok((optional_time(row, 0)?, optional_time(row, 1)?)))
        .optional()?
        .unwrap_or_default();
    Ok(KeyNeeds {
        id,
        versions: count(versions)?,
        configurations: count(configurations)?,
        answers: count(answers)?,
        server_keys,
        first_used_at,
        retired_at,
    })
}

/// The key that seals, as far as is on record.
pub(in super::super) fn current(conn: &Connection) -> Result<Option<MasterKeyId>> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([CURRENT], |row| row.get(0)).optional()?)
}

/// `Moved` where something needs a key that is not among `keys`: it may have been stored while these were read.
pub(in super::super) fn begin(tx: &Tx<'_>, current: MasterKeyId, keys: &[MasterKeyId], by: &By) -> Result<()> {
    let in_use = needed(tx.conn, usize::MAX)?;
    if !in_use.iter().all(|id| keys.contains(id)) {
        return Err(StoreError::Moved(Object::MasterKey));
    }
    // Whatever was noted of it: nothing could be stored under a retired key, and this one seals from now on.
    tx.conn
        .prepare_cached("UPDATE master_keys SET retired_at = NULL WHERE id = ?1 AND retired_at IS NOT NULL")?
        .execute([current])?;
    let before = self::current(tx.conn)?;
    if before == Some(current) {
        return Ok(());
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute((CURRENT, current))?;
    // All that are in use now: before this schema nobody took note of them.
    for id in in_use.into_iter().chain([current]) {
        tx.conn
            .prepare_cached("INSERT INTO master_keys (id, first_used_at) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING")?
            .execute((id, At(tx.now)))?;
    }
    let Some(before) = before else { return Ok(()) };
    let metadata = Metadata {
        old_name: Some(before.to_string()),
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Key, Verb::Rotate).resource(None, &name_of(current));
    tx.audit(Chain::Instance, entry.metadata(metadata), by)
}

fn name_of(key: MasterKeyId) -> String {
    format!("master key {key}")
}

pub(in super::super) fn piece(view: &View<'_>, shelf: Shelf, key: Option<MasterKeyId>, from: i64) -> Result<Piece> {
    if shelf == Shelf::ServerKeys {
        return server_keys(view.conn, key);
    }
    let (columns, table) = joined(shelf);
    let which = key.map_or("", |_| "AND substr(t.sealed, 2, 8) = ?2");
    let sql = format!(
        "SELECT t.rowid, t.sealed, {columns} FROM {table}
         WHERE t.rowid > ?1 AND t.sealed IS NOT NULL {which} ORDER BY t.rowid"
    );
    let mut statement = view.conn.prepare_cached(&sql)?;
    let mut rows = match key {
        Some(key) => statement.query((from, key))?,
        None => statement.query([from])?,
    };
    let (mut values, mut bytes) = (Vec::new(), 0);
    let mut last = from;
    while let Some(row) = rows.next()? {
        view.go_on()?;
        if values.len() >= PIECE || bytes >= PIECE_BYTES {
            return Ok(Piece {
                values,
                next: Some(last),
            });
        }
        last = row.get(0)?;
        let value = wrapped(row, shelf)?;
        bytes += value.sealed.as_bytes().len();
        values.push(value);
    }
    Ok(Piece { values, next: None })
}

/// Opens the newest version that there is: a proof that the keys are those of the data.
pub(super) fn open_newest(conn: &Connection, keyring: &Keyring) -> Result<()> {
    let (columns, table) = joined(Shelf::Versions);
    let sql = format!("SELECT t.rowid, t.sealed, {columns} FROM {table} ORDER BY t.rowid DESC LIMIT 1");
    let newest = conn
        .query_row(&sql, [], |row| wrapped(row, Shelf::Versions))
        .optional()?;
    let Some(Wrapped { place, aad, sealed }) = newest else {
        return Ok(());
    };
    let opened = keyring.open(&aad, &sealed);
    opened
        .map(drop)
        .map_err(|error| StoreError::Internal(format!("{place}: {error}").into()))
}

/// What tells where a value belongs, and the tables that know it.
fn joined(shelf: Shelf) -> (&'static str, &'static str) {
    match shelf {
        Shelf::Versions => (
            "t.id, t.secret_id, s.project_id, p.organization_id, t.environment_id",
            "versions t JOIN secrets s ON s.id = t.secret_id JOIN projects p ON p.id = s.project_id",
        ),
        Shelf::Configurations => (
            "t.id, t.revision_id, e.project_id, p.organization_id, t.environment_id",
            "configurations t JOIN environments e ON e.id = t.environment_id JOIN projects p ON p.id = e.project_id",
        ),
        Shelf::Answers | Shelf::ServerKeys => ("t.scope", "idempotency t"),
    }
}

fn wrapped(row: &Row<'_>, shelf: Shelf) -> rusqlite::Result<Wrapped> {
    let sealed: Sealed = row.get(1)?;
    let inside = |row: &Row<'_>| -> rusqlite::Result<(OrganizationId, ProjectId, EnvironmentId)> {
        Ok((row.get(5)?, row.get(4)?, row.get(6)?))
    };
    let (place, aad) = match shelf {
        Shelf::Versions => {
            let (version, secret): (VersionId, SecretId) = (row.get(2)?, row.get(3)?);
            let (organization, project, environment) = inside(row)?;
            (
                Place::Version { secret, version },
                Aad::version(organization, project, environment, secret, version),
            )
        }
        Shelf::Configurations => {
            let (id, revision): (ConfigurationId, RevisionId) = (row.get(2)?, row.get(3)?);
            let (organization, project, environment) = inside(row)?;
            (
                Place::Configuration(id),
                Aad::configuration(organization, project, environment, id, revision),
            )
        }
        Shelf::Answers | Shelf::ServerKeys => {
            let scope: [u8; 32] = row.get(2)?;
            (Place::Answer(scope), Aad::answer(&scope))
        }
    };
    Ok(Wrapped { place, aad, sealed })
}

fn server_keys(conn: &Connection, key: Option<MasterKeyId>) -> Result<Piece> {
    let mut values = Vec::new();
    for name in SERVER_KEYS {
        let sealed = server_key(conn, name)?.filter(|sealed| key.is_none_or(|key| sealed.key_id() == key));
        values.extend(sealed.map(|sealed| Wrapped {
            place: Place::ServerKey(name),
            aad: Aad::server_key(name),
            sealed,
        }));
    }
    Ok(Piece { values, next: None })
}

pub(in super::super) fn store(tx: &Tx<'_>, values: &[(Wrapped, Sealed)]) -> Result<usize> {
    let began = Instant::now();
    for (done, (before, after)) in values.iter().enumerate() {
        if done > 0 && began.elapsed() >= MAX_TIME {
            return Ok(done);
        }
        check(tx, after)?;
        replace(tx, before, after)?;
    }
    Ok(values.len())
}

/// What is not as it was any more is somebody's newer value, or gone.
fn replace(tx: &Tx<'_>, before: &Wrapped, after: &Sealed) -> Result<()> {
    let (old, conn) = (&before.sealed, tx.conn);
    match before.place {
        Place::Version { secret, version } => {
            // What is remembered of it would need the old key for ever.
            tx.touch(secret);
            conn.prepare_cached("UPDATE versions SET sealed = ?3 WHERE id = ?1 AND sealed = ?2")?
                .execute((version, old, after))
        }
        Place::Configuration(id) => conn
            .prepare_cached("UPDATE configurations SET sealed = ?3 WHERE id = ?1 AND sealed = ?2")?
            .execute((id, old, after)),
        Place::Answer(scope) => conn
            .prepare_cached("UPDATE idempotency SET sealed = ?3 WHERE scope = ?1 AND sealed = ?2")?
            .execute((scope, old, after)),
        Place::ServerKey(name) => conn
            .prepare_cached("UPDATE meta SET value = ?3 WHERE name = ?1 AND value = ?2")?
            .execute((name, old, after)),
    }?;
    Ok(())
}

/// `Moved` where something needs another key than `current`, or where another one seals by now: a rotation that began in
/// the meantime has values under its key only later, and would find it retired.
pub(in super::super) fn retire(tx: &Tx<'_>, current: MasterKeyId, opened: u64, by: &By) -> Result<()> {
    let is_current = self::current(tx.conn)? == Some(current);
    if !is_current || needed(tx.conn, usize::MAX)?.iter().any(|id| *id != current) {
        return Err(StoreError::Moved(Object::MasterKey));
    }
    let mut statement = tx
        .conn
        .prepare_cached("SELECT id FROM master_keys WHERE id <> ?1 AND retired_at IS NULL")?;
    let retiring = statement.query_map([current], |row| row.get::<_, MasterKeyId>(0))?;
    let retiring = retiring.collect::<rusqlite::Result<Vec<_>>>()?;
    for id in retiring {
        tx.conn
            .prepare_cached("UPDATE master_keys SET retired_at = ?2 WHERE id = ?1")?
            .execute((id, At(tx.now)))?;
        let metadata = Metadata {
            count: Some(opened),
            old_name: Some(id.to_string()),
            ..Metadata::default()
        };
        let entry = Entry::new(Kind::Key, Verb::Rewrap).resource(None, &name_of(current));
        tx.audit(Chain::Instance, entry.metadata(metadata), by)?;
    }
    Ok(())
}

/// `Moved` where the value is sealed under another key than the one that seals by now: its caller seals it again. The
/// rotation would not find it, or the server does not have that key any more.
pub(super) fn check(tx: &Tx<'_>, sealed: &Sealed) -> Result<()> {
    match current(tx.conn)? {
        Some(current) if current != sealed.key_id() => Err(StoreError::Moved(Object::MasterKey)),
        Some(_) | None => Ok(()),
    }
}

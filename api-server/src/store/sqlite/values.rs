use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Time;

use super::super::watch::Part;
use super::super::{
    ActiveVersion, Appended, Creator, EnvironmentRef, Location, NewVersion, Object, ProjectRef, Refusal, Result, Slot,
    StoreError, Topic, Version, VersionEdit, VersionInfo, version,
};
use super::environments;
use super::projects::changed;
use super::reader::View;
use super::rewrap;
use super::row::{At, Id, integer, number, optional_id, optional_time, time};
use super::secrets;
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{EnvironmentId, SecretId};

/// A version `v` that no deletion hides.
pub(super) const VISIBLE: &str = "NOT EXISTS (SELECT 1 FROM hidden_versions h WHERE h.secret_id = v.secret_id \
    AND h.environment_id = v.environment_id AND v.number BETWEEN h.from_number AND h.to_number)";
/// A version `v` that may be read at the instant `?1`: what [`crate::store::version::State::is_readable`] says.
pub(super) const ACTIVE: &str = "v.is_enabled = 1 AND (v.not_before IS NULL OR v.not_before <= ?1) \
    AND (v.expires_at IS NULL OR v.expires_at >= ?1) \
    AND NOT EXISTS (SELECT 1 FROM hidden_versions h WHERE h.secret_id = v.secret_id \
    AND h.environment_id = v.environment_id AND v.number BETWEEN h.from_number AND h.to_number)";

const INFO: &str = "v.id, v.number, v.is_enabled, v.not_before, v.expires_at, v.created_at, v.created_by_type, \
    v.created_by_id, v.created_by_name";

fn info_from_row(row: &Row<'_>) -> rusqlite::Result<VersionInfo> {
    Ok(VersionInfo {
        id: row.get(0)?,
        number: number(row, 1)?,
        is_enabled: row.get(2)?,
        not_before: optional_time(row, 3)?,
        expires_at: optional_time(row, 4)?,
        created_at: time(row, 5)?,
        created_by: Creator {
            kind: row.get(6)?,
            id: optional_id(row, 7)?,
            name: row.get(8)?,
        },
    })
}

pub(in super::super) fn locate(
    conn: &Connection,
    project: &ProjectRef,
    name: &str,
    environments: &[String],
) -> Result<Vec<Slot>> {
    let project = super::projects::find(conn, project)?.id;
    let found = secrets::by_name(conn, project, name)?;
    let exists = found.is_some();
    let secret = found.map_or_else(SecretId::new, |secret| secret.id);
    let slot = |environment: &String| {
        let environment = ProjectRef::Id(project).environment(environment);
        Ok(Slot {
            location: environments::locate(conn, &environment)?,
            secret,
            name: name.to_owned(),
            exists,
        })
    };
    environments.iter().map(slot).collect()
}

pub(in super::super) fn append(
    tx: &Tx<'_>,
    versions: &[NewVersion],
    description: Option<&str>,
    by: &By,
) -> Result<Vec<Appended>> {
    let mut touched = BTreeSet::new();
    let mut appended = Vec::with_capacity(versions.len());
    for version in versions {
        let slot = &version.slot;
        tx.touch(slot.secret);
        hold(tx, slot, description)?;
        let (secret, environment) = (slot.secret, slot.location.environment);
        if let Some(from) = version.from
            && !is_visible(tx.conn, secret, environment, from)?
        {
            return Err(StoreError::NotFound(Object::Version));
        }
        let first = !has_visible(tx.conn, secret, environment)?;
        let number = next_number(tx.conn, secret, environment)?;
        insert(tx, version, number, by)?;
        if touched.insert(secret) {
            secrets::touch(tx, secret, tx.now, description)?;
        }
        let metadata = Metadata {
            version: Some(number),
            from_version: version.from,
            ..Metadata::default()
        };
        record(tx, Verb::Set, &slot.location, (secret, &slot.name), metadata, by)?;
        tx.publish(Topic::Environment(environment).part(Part::Secret(slot.name.clone(), [number; 2])));
        let created = "SELECT created_at FROM secrets WHERE id = ?1";
        appended.push(Appended {
            number,
            created_at: tx.now,
            secret_created_at: tx
                .conn
                .prepare_cached(created)?
                .query_row([secret], |row| time(row, 0))?,
            first,
        });
    }
    Ok(appended)
}

/// Makes sure that the place is what it was when it was looked up, and makes the secret if it was to be made.
fn hold(tx: &Tx<'_>, slot: &Slot, description: Option<&str>) -> Result<()> {
    if !environments::is_live(tx.conn, &slot.location)? {
        return Err(StoreError::Moved(Object::Environment));
    }
    match secrets::by_name(tx.conn, slot.location.project, &slot.name)? {
        Some(secret) if secret.id == slot.secret => Ok(()),
        None if !slot.exists => secrets::insert(tx, slot.secret, slot.location.project, &slot.name, description),
        _ => Err(StoreError::Moved(Object::Secret)),
    }
}

fn is_visible(conn: &Connection, secret: SecretId, environment: EnvironmentId, number: u64) -> Result<bool> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT 1 FROM versions v WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND v.number = ?3 AND {VISIBLE}"
    ))?;
    Ok(statement.exists((secret, environment, integer(number)))?)
}

pub(super) fn has_visible(conn: &Connection, secret: SecretId, environment: EnvironmentId) -> Result<bool> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT 1 FROM versions v WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND {VISIBLE}"
    ))?;
    Ok(statement.exists((secret, environment))?)
}

/// Numbers count on behind what is hidden, and behind what was hidden and then purged.
fn next_number(conn: &Connection, secret: SecretId, environment: EnvironmentId) -> Result<u64> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 + max(
             (SELECT coalesce(max(number), 0) FROM versions WHERE secret_id = ?1 AND environment_id = ?2),
             (SELECT coalesce(max(to_number), 0) FROM hidden_versions WHERE secret_id = ?1 AND environment_id = ?2))",
    )?;
    Ok(statement.query_row((secret, environment), |row| number(row, 0))?)
}

fn insert(tx: &Tx<'_>, version: &NewVersion, number: u64, by: &By) -> Result<()> {
    rewrap::check(tx, &version.sealed)?;
    tx.conn
        .prepare_cached(
            "INSERT INTO versions (id, secret_id, environment_id, number, is_enabled, not_before, expires_at, created_at,
                 created_by_type, created_by_id, created_by_name, sealed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(rusqlite::params![
            version.id,
            version.slot.secret,
            version.slot.location.environment,
            integer(number),
            version.is_enabled,
            version.not_before.map(At),
            version.expires_at.map(At),
            At(tx.now),
            by.actor.kind.as_str(),
            by.actor.id.map(Id),
            by.actor.name,
            version.sealed,
        ])?;
    Ok(())
}

fn record(
    tx: &Tx<'_>,
    verb: Verb,
    location: &Location,
    (secret, name): (SecretId, &str),
    metadata: Metadata,
    by: &By,
) -> Result<()> {
    let entry = Entry::new(Kind::Secret, verb)
        .resource(secret.0, name)
        .at(&location.project_slug, Some(&location.environment_slug))
        .metadata(metadata);
    tx.audit(Chain::Organization(location.organization), entry, by)
}

/// The active version, and when time alone makes another one active, or none.
pub(super) fn active(
    view: &View<'_>,
    environment: &EnvironmentRef,
    name: &str,
) -> Result<(ActiveVersion, Option<Time>)> {
    let location = environments::locate(view.conn, environment)?;
    let secret = secrets::by_name(view.conn, location.project, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    let mut statement = view.conn.prepare_cached(&format!(
        "SELECT v.id, v.number, v.not_before, v.expires_at, v.created_at, v.sealed FROM versions v
         WHERE v.secret_id = ?2 AND v.environment_id = ?3 AND {ACTIVE} ORDER BY v.number DESC LIMIT 1"
    ))?;
    let place = (At(view.now), secret.id, location.environment);
    let location = Arc::new(location);
    let found = statement
        .query_row(place, |row| {
            Ok(ActiveVersion {
                location: Arc::clone(&location),
                secret: secret.id,
                name: secret.name,
                secret_created_at: secret.created_at,
                id: row.get(0)?,
                number: number(row, 1)?,
                not_before: optional_time(row, 2)?,
                expires_at: optional_time(row, 3)?,
                created_at: time(row, 4)?,
                sealed: row.get(5)?,
            })
        })
        .optional()?;
    let active = found.ok_or(StoreError::NotFound(Object::Version))?;
    // What begins later counts even if it is hidden now: too early an end costs one more look.
    let mut statement = view.conn.prepare_cached(
        "SELECT min(v.not_before) FROM versions v
         WHERE v.secret_id = ?2 AND v.environment_id = ?3 AND v.number > ?4 AND v.is_enabled = 1 AND v.not_before > ?1",
    )?;
    let (now, secret, environment) = place;
    let begins = statement.query_row((now, secret, environment, integer(active.number)), |row| {
        optional_time(row, 0)
    })?;
    let ends = active.expires_at.and_then(version::just_after);
    Ok((active, [begins, ends].into_iter().flatten().min()))
}

pub(in super::super) fn find(
    conn: &Connection,
    environment: &EnvironmentRef,
    name: &str,
    number: u64,
) -> Result<Version> {
    let location = environments::locate(conn, environment)?;
    let secret = secrets::by_name(conn, location.project, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {INFO}, v.sealed FROM versions v
         WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND v.number = ?3 AND {VISIBLE}"
    ))?;
    let found = statement
        .query_row((secret.id, location.environment, integer(number)), |row| {
            Ok((info_from_row(row)?, row.get(9)?))
        })
        .optional()?;
    let (info, sealed) = found.ok_or(StoreError::NotFound(Object::Version))?;
    Ok(Version {
        location,
        secret: secret.id,
        name: secret.name,
        secret_created_at: secret.created_at,
        info,
        sealed,
    })
}

pub(in super::super) fn edit(
    tx: &Tx<'_>,
    environment: &EnvironmentRef,
    (name, number): (&str, u64),
    edit: VersionEdit,
    by: &By,
) -> Result<VersionInfo> {
    let location = environments::locate(tx.conn, environment)?;
    let secret = secrets::by_name(tx.conn, location.project, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    let mut statement = tx.conn.prepare_cached(&format!(
        "SELECT {INFO} FROM versions v
         WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND v.number = ?3 AND {VISIBLE}"
    ))?;
    let found = statement
        .query_row((secret.id, location.environment, integer(number)), info_from_row)
        .optional()?;
    let before = found.ok_or(StoreError::NotFound(Object::Version))?;
    tx.touch(secret.id);
    let after = VersionInfo {
        is_enabled: edit.is_enabled.unwrap_or(before.is_enabled),
        not_before: edit.not_before.over(before.not_before),
        expires_at: edit.expires_at.over(before.expires_at),
        ..before.clone()
    };
    if let (Some(start), Some(end)) = (after.not_before, after.expires_at)
        && end <= start
    {
        return Err(Refusal::EmptyWindow.into());
    }
    let fields = changed(&[
        ("is_enabled", before.is_enabled != after.is_enabled),
        ("not_before", before.not_before != after.not_before),
        ("expires_at", before.expires_at != after.expires_at),
    ]);
    if fields.is_empty() {
        return Ok(before);
    }
    tx.conn
        .prepare_cached("UPDATE versions SET is_enabled = ?2, not_before = ?3, expires_at = ?4 WHERE id = ?1")?
        .execute((
            after.id,
            after.is_enabled,
            after.not_before.map(At),
            after.expires_at.map(At),
        ))?;
    let metadata = Metadata {
        version: Some(number),
        fields,
        ..Metadata::default()
    };
    record(tx, Verb::Update, &location, (secret.id, name), metadata, by)?;
    tx.publish(Topic::Environment(location.environment).part(Part::Secret(secret.name, [number; 2])));
    Ok(after)
}

/// Newest first, those below `before`; at most `limit`.
pub(in super::super) fn list(
    conn: &Connection,
    environment: &EnvironmentRef,
    name: &str,
    (before, limit): (Option<u64>, Option<u32>),
) -> Result<Vec<VersionInfo>> {
    let location = environments::locate(conn, environment)?;
    let secret = secrets::by_name(conn, location.project, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {INFO} FROM versions v WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND v.number < ?3 AND {VISIBLE}
         ORDER BY v.number DESC LIMIT ?4"
    ))?;
    let before = before.map_or(i64::MAX, integer);
    let limit = limit.map_or(-1, i64::from);
    let rows = statement.query_map((secret.id, location.environment, before, limit), info_from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

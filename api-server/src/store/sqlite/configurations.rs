use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::wire::Labels;

use super::super::watch::Part;
use super::super::{
    Configuration, ConfigurationPage, ConfigurationSlot, ConfigurationWrite, Configurations, EnvironmentRef, Expect,
    Fate, Location, Object, Page, ProjectRef, Result, StoreError, Topic,
};
use super::environments;
use super::reader::View;
use super::rewrap;
use super::row::{At, integer, number, time};
use super::trash::{self, Deleted, What};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{ConfigurationId, TrashId};

const COLUMNS: &str = "c.id, c.revision_id, c.revision, c.key, c.sealed, c.description, c.created_at, c.updated_at";

fn from_row(row: &Row<'_>, location: &Location) -> rusqlite::Result<Configuration> {
    Ok(Configuration {
        location: location.clone(),
        id: row.get(0)?,
        revision_id: row.get(1)?,
        revision: number(row, 2)?,
        key: row.get(3)?,
        sealed: row.get(4)?,
        description: row.get(5)?,
        created_at: time(row, 6)?,
        updated_at: time(row, 7)?,
    })
}

fn by_key(conn: &Connection, location: &Location, key: &str) -> Result<Option<Configuration>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM configurations c WHERE c.environment_id = ?1 AND c.key = ?2 AND c.deleted_at IS NULL"
    ))?;
    let found = statement.query_row((location.environment, key), |row| from_row(row, location));
    Ok(found.optional()?)
}

pub(in super::super) fn find(conn: &Connection, environment: &EnvironmentRef, key: &str) -> Result<Configuration> {
    let location = environments::locate(conn, environment)?;
    by_key(conn, &location, key)?.ok_or(StoreError::NotFound(Object::Configuration))
}

/// All entries of one environment, by key.
pub(super) fn of_environment(conn: &Connection, location: &Location) -> Result<Vec<Configuration>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM configurations c
         WHERE c.environment_id = ?1 AND c.deleted_at IS NULL ORDER BY c.key"
    ))?;
    let rows = statement.query_map([location.environment], |row| from_row(row, location))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The environments that are meant, in the order of their entries.
fn slugs(conn: &Connection, project: &ProjectRef, only: Option<&str>) -> Result<Vec<String>> {
    if let Some(only) = only {
        return Ok(vec![only.to_owned()]);
    }
    let all = environments::list(conn, project, &Labels::new(), &Page::default())?;
    Ok(all.into_iter().map(|environment| environment.slug).collect())
}

/// Stops in the middle of an environment as well as between two.
pub(in super::super) fn page(
    view: &View<'_>,
    project: &ProjectRef,
    page: &ConfigurationPage,
) -> Result<Configurations> {
    let conn = view.conn;
    let (from, behind) = page.after.clone().unwrap_or_default();
    let slugs = slugs(conn, project, page.environment.as_deref())?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for slug in slugs.into_iter().filter(|slug| *slug >= from) {
        let after = if slug == from { behind.as_str() } else { "" };
        let location = environments::locate(conn, &project.clone().environment(slug))?;
        let mut statement = conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM configurations c
             WHERE c.environment_id = ?1 AND c.deleted_at IS NULL AND c.key > ?2 ORDER BY c.key"
        ))?;
        let mut rows = statement.query((location.environment, after))?;
        while let Some(row) = rows.next()? {
            view.go_on()?;
            if entries.len() >= page.limit || bytes >= page.bytes {
                return Ok(Configurations { entries, more: true });
            }
            let entry = from_row(row, &location)?;
            bytes += entry.sealed.as_bytes().len();
            entries.push(entry);
        }
    }
    Ok(Configurations { entries, more: false })
}

pub(in super::super) fn locate(
    conn: &Connection,
    environment: &EnvironmentRef,
    key: &str,
) -> Result<ConfigurationSlot> {
    let location = environments::locate(conn, environment)?;
    let found = by_key(conn, &location, key)?;
    Ok(ConfigurationSlot {
        exists: found.is_some(),
        id: found.map_or_else(ConfigurationId::new, |it| it.id),
        location,
        key: key.to_owned(),
    })
}

/// The entry as it is now, in a place that is still what it was.
fn hold(conn: &Connection, slot: &ConfigurationSlot) -> Result<Option<Configuration>> {
    if !environments::is_live(conn, &slot.location)? {
        return Err(StoreError::Moved(Object::Environment));
    }
    by_key(conn, &slot.location, &slot.key)
}

pub(in super::super) fn create(tx: &Tx<'_>, write: ConfigurationWrite, by: &By) -> Result<Configuration> {
    let ConfigurationWrite {
        slot,
        revision,
        sealed,
        description,
    } = write;
    rewrap::check(tx, &sealed)?;
    if hold(tx.conn, &slot)?.is_some() {
        return Err(StoreError::Conflict(Object::Configuration));
    }
    if slot.exists {
        // It was deleted since: what was sealed is bound to an entry that is no more.
        return Err(StoreError::Moved(Object::Configuration));
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO configurations
                 (id, environment_id, key, description, revision, revision_id, created_at, updated_at, sealed)
             VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?6, ?7)",
        )?
        .execute((
            slot.id,
            slot.location.environment,
            &slot.key,
            description,
            revision,
            At(tx.now),
            sealed,
        ))?;
    stored(tx, &slot, by)
}

pub(in super::super) fn update(
    tx: &Tx<'_>,
    write: ConfigurationWrite,
    expect: &Expect<Configuration>,
    by: &By,
) -> Result<Configuration> {
    let ConfigurationWrite {
        slot,
        revision,
        sealed,
        description,
    } = write;
    rewrap::check(tx, &sealed)?;
    if !slot.exists {
        return Err(StoreError::NotFound(Object::Configuration));
    }
    let before = match hold(tx.conn, &slot)? {
        Some(before) if before.id == slot.id => before,
        _ => return Err(StoreError::Moved(Object::Configuration)),
    };
    expect.check(Object::Configuration, &before)?;
    tx.conn
        .prepare_cached(
            "UPDATE configurations SET sealed = ?2, revision = ?3, revision_id = ?4, updated_at = ?5,
                 description = coalesce(?6, description)
             WHERE id = ?1",
        )?
        .execute((
            before.id,
            sealed,
            integer(before.revision + 1),
            revision,
            At(tx.now),
            description,
        ))?;
    stored(tx, &slot, by)
}

fn stored(tx: &Tx<'_>, slot: &ConfigurationSlot, by: &By) -> Result<Configuration> {
    let now = by_key(tx.conn, &slot.location, &slot.key)?.ok_or(StoreError::NotFound(Object::Configuration))?;
    record(tx, Verb::Set, &now, by)?;
    Ok(now)
}

pub(in super::super) fn delete(
    tx: &Tx<'_>,
    environment: &EnvironmentRef,
    key: &str,
    (fate, by): (Fate, &By),
) -> Result<TrashId> {
    let before = find(tx.conn, environment, key)?;
    tx.conn
        .prepare_cached("UPDATE configurations SET deleted_at = ?2 WHERE id = ?1")?
        .execute((before.id, At(tx.now)))?;
    record(tx, Verb::Delete, &before, by)?;
    trash::put(
        tx,
        &Deleted::at(&before.location, What::Configuration(before.id), key),
        (fate, by),
    )
}

fn record(tx: &Tx<'_>, verb: Verb, configuration: &Configuration, by: &By) -> Result<()> {
    let location = &configuration.location;
    let metadata = Metadata {
        version: Some(configuration.revision),
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Config, verb)
        .resource(configuration.id.0, &configuration.key)
        .at(&location.project_slug, Some(&location.environment_slug))
        .metadata(metadata);
    tx.audit(Chain::Organization(location.organization), entry, by)?;
    tx.publish(Topic::Environment(location.environment).part(Part::Configurations));
    Ok(())
}

use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Time;

use super::super::watch::{EVERY_VERSION, Part};
use super::super::{
    EnvironmentRef, Fate, ListedSecret, Location, NewSecret, Object, Page, Project, ProjectRef, Provision, Result,
    Secret, SecretDetail, StoreError, Topic,
};
use super::reader::View;
use super::row::{At, Id, integer, number, time};
use super::trash::{self, Deleted, What};
use super::tx::Tx;
use super::values::{ACTIVE, VISIBLE};
use super::{environments, projects};
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{EnvironmentId, ProjectId, SecretId, TrashId};

const COLUMNS: &str = "s.id, s.name, s.description, s.created_at, s.updated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Secret> {
    Ok(Secret {
        id: row.get(0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        created_at: time(row, 3)?,
        updated_at: time(row, 4)?,
    })
}

/// The live secret of that name.
pub(super) fn by_name(conn: &Connection, project: ProjectId, name: &str) -> Result<Option<Secret>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM secrets s WHERE s.project_id = ?1 AND s.name = ?2 AND s.deleted_at IS NULL"
    ))?;
    Ok(statement.query_row((project, name), from_row).optional()?)
}

pub(in super::super) fn list(conn: &Connection, project: &ProjectRef, page: &Page) -> Result<Vec<Secret>> {
    let project = projects::find(conn, project)?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM secrets s
         WHERE s.project_id = ?1 AND s.deleted_at IS NULL AND s.name > ?2 ORDER BY s.name LIMIT ?3"
    ))?;
    let rows = statement.query_map((project.id, page.after(), page.limit()), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in super::super) fn find(conn: &Connection, project: &ProjectRef, name: &str) -> Result<SecretDetail> {
    detail(conn, projects::find(conn, project)?.id, name)
}

fn detail(conn: &Connection, project: ProjectId, name: &str) -> Result<SecretDetail> {
    let secret = by_name(conn, project, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT e.slug, e.display_name,
             EXISTS (SELECT 1 FROM versions v WHERE v.secret_id = ?2 AND v.environment_id = e.id AND {VISIBLE})
         FROM environments e WHERE e.project_id = ?1 AND e.deleted_at IS NULL ORDER BY e.slug"
    ))?;
    let rows = statement.query_map((project, secret.id), |row| {
        Ok(Provision {
            slug: row.get(0)?,
            display_name: row.get(1)?,
            provided: row.get(2)?,
        })
    })?;
    let environments = rows.collect::<rusqlite::Result<_>>()?;
    Ok(SecretDetail { secret, environments })
}

pub(in super::super) fn list_in_environment(
    view: &View<'_>,
    environment: &EnvironmentRef,
    page: &Page,
    permits: &dyn Fn(&Location, &str) -> bool,
) -> Result<(Location, Vec<ListedSecret>)> {
    let location = environments::locate(view.conn, environment)?;
    let limit = page
        .limit
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut names = view.conn.prepare_cached(
        "SELECT s.id, s.name, s.description FROM secrets s
         WHERE s.project_id = ?1 AND s.deleted_at IS NULL AND s.name > ?2 ORDER BY s.name",
    )?;
    let mut newest = view.conn.prepare_cached(&format!(
        "SELECT v.created_at FROM versions v WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND {VISIBLE}
         ORDER BY v.number DESC LIMIT 1"
    ))?;
    let mut active = view.conn.prepare_cached(&format!(
        "SELECT v.number FROM versions v WHERE v.secret_id = ?2 AND v.environment_id = ?3 AND {ACTIVE}
         ORDER BY v.number DESC LIMIT 1"
    ))?;
    let mut rows = names.query((location.project, page.after()))?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        view.go_on()?;
        let name: String = row.get(1)?;
        if !permits(&location, &name) {
            continue;
        }
        let id: SecretId = row.get(0)?;
        let updated_at = newest
            .query_row((id, location.environment), |row| time(row, 0))
            .optional()?;
        // Without a version it is a secret of other environments.
        let Some(updated_at) = updated_at else { continue };
        let version = active.query_row((At(view.now), id, location.environment), |row| number(row, 0));
        found.push(ListedSecret {
            id,
            name,
            description: row.get(2)?,
            version: version.optional()?,
            updated_at,
        });
    }
    drop(rows);
    Ok((location, found))
}

pub(in super::super) fn create(tx: &Tx<'_>, project: &ProjectRef, new: &NewSecret, by: &By) -> Result<SecretDetail> {
    let project = projects::find(tx.conn, project)?;
    if by_name(tx.conn, project.id, &new.name)?.is_some() {
        return Err(StoreError::Conflict(Object::Secret));
    }
    let id = SecretId::new();
    insert(tx, id, project.id, &new.name, new.description.as_deref())?;
    record(tx, &project, Verb::Create, id, &new.name, by)?;
    detail(tx.conn, project.id, &new.name)
}

pub(super) fn insert(
    tx: &Tx<'_>,
    id: SecretId,
    project: ProjectId,
    name: &str,
    description: Option<&str>,
) -> Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO secrets (id, project_id, name, description, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        )?
        .execute((id, project, name, description, At(tx.now)))?;
    Ok(())
}

/// Notes that a value was set; a description that is given takes the place of the old one.
pub(super) fn touch(tx: &Tx<'_>, id: SecretId, at: Time, description: Option<&str>) -> Result<()> {
    tx.conn
        .prepare_cached("UPDATE secrets SET updated_at = ?2, description = coalesce(?3, description) WHERE id = ?1")?
        .execute((id, At(at), description))?;
    Ok(())
}

pub(in super::super) fn delete(
    tx: &Tx<'_>,
    project: &ProjectRef,
    name: &str,
    (fate, by): (Fate, &By),
) -> Result<TrashId> {
    let project = projects::find(tx.conn, project)?;
    let secret = by_name(tx.conn, project.id, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    tx.conn
        .prepare_cached("UPDATE secrets SET deleted_at = ?2 WHERE id = ?1")?
        .execute((secret.id, At(tx.now)))?;
    record(tx, &project, Verb::Delete, secret.id, name, by)?;
    // It is gone from every environment.
    tx.publish(Topic::Project(project.id).part(Part::Secret(secret.name, EVERY_VERSION)));
    let deleted = Deleted {
        organization: project.organization,
        project: project.id,
        environment: None,
        what: What::Secret(secret.id),
        name,
    };
    trash::put(tx, &deleted, (fate, by))
}

pub(in super::super) fn hide(
    tx: &Tx<'_>,
    environment: &EnvironmentRef,
    name: &str,
    (fate, by): (Fate, &By),
) -> Result<TrashId> {
    let location = environments::locate(tx.conn, environment)?;
    let secret = by_name(tx.conn, location.project, name)?.ok_or(StoreError::NotFound(Object::Secret))?;
    let ranges = visible_ranges(tx.conn, secret.id, location.environment)?;
    let (Some([from, _]), Some([_, to])) = (ranges.first(), ranges.last()) else {
        return Err(StoreError::NotFound(Object::Secret));
    };
    let metadata = Metadata {
        version: Some(*to),
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Secret, Verb::Delete)
        .resource(secret.id.0, name)
        .at(&location.project_slug, Some(&location.environment_slug))
        .metadata(metadata);
    tx.audit(Chain::Organization(location.organization), entry, by)?;
    tx.publish(Topic::Environment(location.environment).part(Part::Secret(secret.name, [*from, *to])));
    let what = What::Versions(secret.id, [*from, *to]);
    let id = trash::put(tx, &Deleted::at(&location, what, name), (fate, by))?;
    let mut insert = tx.conn.prepare_cached(
        "INSERT INTO hidden_versions (id, secret_id, environment_id, from_number, to_number, trash_id, deleted_at,
             deleted_by_type, deleted_by_id, deleted_by_name)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for [from, to] in &ranges {
        insert.execute(rusqlite::params![
            Id(uuid::Uuid::now_v7()),
            secret.id,
            location.environment,
            integer(*from),
            integer(*to),
            id,
            At(tx.now),
            by.actor.kind.as_str(),
            by.actor.id.map(Id),
            by.actor.name,
        ])?;
    }
    Ok(id)
}

/// The versions that no deletion hides, as first and last numbers. Between two such ranges there is what an earlier
/// deletion hides: one that holds both could not be undone without it.
fn visible_ranges(conn: &Connection, secret: SecretId, environment: EnvironmentId) -> Result<Vec<[u64; 2]>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT v.number FROM versions v WHERE v.secret_id = ?1 AND v.environment_id = ?2 AND {VISIBLE} ORDER BY v.number"
    ))?;
    let numbers = statement.query_map((secret, environment), |row| number(row, 0))?;
    let mut ranges: Vec<[u64; 2]> = Vec::new();
    for number in numbers {
        let number = number?;
        match ranges.last_mut() {
            Some([_, to]) if *to + 1 == number => *to = number,
            _ => ranges.push([number, number]),
        }
    }
    Ok(ranges)
}

fn record(tx: &Tx<'_>, project: &Project, verb: Verb, id: SecretId, name: &str, by: &By) -> Result<()> {
    let entry = Entry::new(Kind::Secret, verb)
        .resource(id.0, name)
        .at(&project.slug, None);
    tx.audit(Chain::Organization(project.organization), entry, by)
}

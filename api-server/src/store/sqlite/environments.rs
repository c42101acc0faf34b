use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::wire::Labels;

use super::super::watch::Part;
use super::super::{
    Environment, EnvironmentRef, EnvironmentUpdate, Expect, Fate, Location, NewEnvironment, Object, OrganizationRef,
    Page, ProjectRef, Result, StoreError, Topic,
};
use super::projects::{self, LABELS_MATCH, changed};
use super::row::{At, LabelsText, labels, labels_text, time};
use super::trash::{self, Deleted, What};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{EnvironmentId, ProjectId, TrashId};

const COLUMNS: &str = "e.id, e.slug, e.display_name, e.labels, e.created_at, e.updated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Environment> {
    Ok(Environment {
        id: row.get(0)?,
        slug: row.get(1)?,
        display_name: row.get(2)?,
        labels: labels(row, 3)?,
        created_at: time(row, 4)?,
        updated_at: time(row, 5)?,
    })
}

const LOCATION: &str = "o.id, o.name, p.id, p.slug, e.id, e.slug";
/// A live environment of a live project of a live organization.
const LIVE: &str = "FROM environments e
    JOIN projects p ON p.id = e.project_id AND p.deleted_at IS NULL
    JOIN organizations o ON o.id = p.organization_id AND o.deleted_at IS NULL
    WHERE e.deleted_at IS NULL AND e.slug = ?1";

fn location_from_row(row: &Row<'_>) -> rusqlite::Result<Location> {
    Ok(Location {
        organization: row.get(0)?,
        organization_name: row.get(1)?,
        project: row.get(2)?,
        project_slug: row.get(3)?,
        environment: row.get(4)?,
        environment_slug: row.get(5)?,
    })
}

/// Where an environment is.
pub(super) fn locate(conn: &Connection, environment: &EnvironmentRef) -> Result<Location> {
    let EnvironmentRef { project, environment } = environment;
    let found = match project {
        ProjectRef::Slug {
            organization,
            project: slug,
        } => match organization {
            OrganizationRef::Name(name) => conn
                .prepare_cached(&format!("SELECT {LOCATION} {LIVE} AND p.slug = ?2 AND o.name = ?3"))?
                .query_row((environment, slug, name), location_from_row),
            OrganizationRef::Id(id) => conn
                .prepare_cached(&format!("SELECT {LOCATION} {LIVE} AND p.slug = ?2 AND o.id = ?3"))?
                .query_row((environment, slug, id), location_from_row),
        }
        .optional()?,
        ProjectRef::Id(id) => conn
            .prepare_cached(&format!("SELECT {LOCATION} {LIVE} AND p.id = ?2"))?
            .query_row((environment, id), location_from_row)
            .optional()?,
    };
    match found {
        Some(found) => Ok(found),
        // Says which of them is missing.
        None => projects::find(conn, project).and(Err(StoreError::NotFound(Object::Environment))),
    }
}

/// Whether a place found earlier is still there.
pub(super) fn is_live(conn: &Connection, location: &Location) -> Result<bool> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM environments e
         JOIN projects p ON p.id = e.project_id AND p.deleted_at IS NULL
         JOIN organizations o ON o.id = p.organization_id AND o.deleted_at IS NULL
         WHERE e.id = ?1 AND e.deleted_at IS NULL AND p.id = ?2 AND o.id = ?3",
    )?;
    Ok(statement.exists((location.environment, location.project, location.organization))?)
}

pub(in super::super) fn find(conn: &Connection, environment: &EnvironmentRef) -> Result<(Location, Environment)> {
    let location = locate(conn, environment)?;
    let found = by_id(conn, location.environment)?;
    Ok((location, found))
}

fn by_id(conn: &Connection, id: EnvironmentId) -> Result<Environment> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM environments e WHERE e.id = ?1"))?;
    Ok(statement.query_row([id], from_row)?)
}

pub(in super::super) fn list(
    conn: &Connection,
    project: &ProjectRef,
    labels: &Labels,
    page: &Page,
) -> Result<Vec<Environment>> {
    let project = projects::find(conn, project)?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM environments e
         WHERE e.project_id = ?1 AND e.deleted_at IS NULL AND {LABELS_MATCH}
             AND e.slug > ?3 ORDER BY e.slug LIMIT ?4"
    ))?;
    let rows = statement.query_map((project.id, labels_text(labels), page.after(), page.limit()), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn insert(tx: &Tx<'_>, project: ProjectId, new: &NewEnvironment) -> Result<EnvironmentId> {
    let taken = "SELECT 1 FROM environments WHERE project_id = ?1 AND slug = ?2 AND deleted_at IS NULL";
    if tx.conn.prepare_cached(taken)?.exists((project, new.slug.as_str()))? {
        return Err(StoreError::Conflict(Object::Environment));
    }
    let id = EnvironmentId::new();
    tx.conn
        .prepare_cached(
            "INSERT INTO environments (id, project_id, slug, display_name, labels, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        )?
        .execute((
            id,
            project,
            new.slug.as_str(),
            &new.display_name,
            LabelsText(new.labels.clone()),
            At(tx.now),
        ))?;
    Ok(id)
}

pub(in super::super) fn create(
    tx: &Tx<'_>,
    project: &ProjectRef,
    new: &NewEnvironment,
    by: &By,
) -> Result<Environment> {
    let project = projects::find(tx.conn, project)?;
    let id = insert(tx, project.id, new)?;
    let entry = Entry::new(Kind::Env, Verb::Create)
        .resource(id.0, new.slug.as_str())
        .at(&project.slug, Some(new.slug.as_str()));
    tx.audit(Chain::Organization(project.organization), entry, by)?;
    tx.publish(Topic::Project(project.id).part(Part::Aside));
    by_id(tx.conn, id)
}

pub(in super::super) fn update(
    tx: &Tx<'_>,
    environment: &EnvironmentRef,
    update: &EnvironmentUpdate,
    expect: &Expect<Environment>,
    by: &By,
) -> Result<Environment> {
    let (location, before) = find(tx.conn, environment)?;
    expect.check(Object::Environment, &before)?;
    let labels = update.labels.as_ref().unwrap_or(&before.labels);
    let fields = changed(&[
        ("display_name", before.display_name != update.display_name),
        ("labels", before.labels != *labels),
    ]);
    if fields.is_empty() {
        return Ok(before);
    }
    tx.conn
        .prepare_cached("UPDATE environments SET display_name = ?2, labels = ?3, updated_at = ?4 WHERE id = ?1")?
        .execute((before.id, &update.display_name, LabelsText(labels.clone()), At(tx.now)))?;
    let metadata = Metadata {
        fields,
        ..Metadata::default()
    };
    record(
        tx,
        &location,
        Entry::new(Kind::Env, Verb::Update).metadata(metadata),
        by,
    )?;
    tx.publish(Topic::Environment(before.id).part(Part::Aside));
    by_id(tx.conn, before.id)
}

pub(in super::super) fn delete(tx: &Tx<'_>, environment: &EnvironmentRef, (fate, by): (Fate, &By)) -> Result<TrashId> {
    let location = locate(tx.conn, environment)?;
    tx.conn
        .prepare_cached("UPDATE environments SET deleted_at = ?2 WHERE id = ?1")?
        .execute((location.environment, At(tx.now)))?;
    record(tx, &location, Entry::new(Kind::Env, Verb::Delete), by)?;
    tx.publish(Topic::Environment(location.environment));
    trash::put(
        tx,
        &Deleted::at(&location, What::Environment, &location.environment_slug),
        (fate, by),
    )
}

fn record(tx: &Tx<'_>, location: &Location, entry: Entry, by: &By) -> Result<()> {
    let slug = &location.environment_slug;
    let entry = entry
        .resource(location.environment.0, slug)
        .at(&location.project_slug, Some(slug));
    tx.audit(Chain::Organization(location.organization), entry, by)
}

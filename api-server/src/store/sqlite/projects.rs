use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Slug;
use sealpod_core::kubernetes::OWNER_LABEL;
use sealpod_core::wire::Labels;

use super::super::watch::Part;
use super::super::{
    Expect, Fate, NewProject, Object, OrganizationRef, Page, Project, ProjectEdit, ProjectRef, ProjectUpdate, Refusal,
    Result, Rotated, StoreError, Topic,
};
use super::keys::{self, Owner};
use super::row::{At, LabelsText, labels, labels_text, time};
use super::trash::{self, Deleted, What};
use super::tx::Tx;
use super::{environments, organizations};
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::crypto::NewKey;
use crate::ids::{OrganizationId, ProjectId, TrashId};

const COLUMNS: &str =
    "p.id, p.organization_id, p.slug, p.display_name, p.description, p.labels, p.created_at, p.updated_at";
/// Live projects of live organizations.
const LIVE: &str = "FROM projects p JOIN organizations o ON o.id = p.organization_id AND o.deleted_at IS NULL \
    WHERE p.deleted_at IS NULL";
/// Every label of the JSON object in `?2` is among those of the row.
pub(super) const LABELS_MATCH: &str = "NOT EXISTS (SELECT 1 FROM json_each(?2) AS want WHERE NOT EXISTS \
    (SELECT 1 FROM json_each(labels) AS have WHERE have.key = want.key AND have.value = want.value))";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Project> {
    Ok(Project {
        id: row.get(0)?,
        organization: row.get(1)?,
        slug: row.get(2)?,
        display_name: row.get(3)?,
        description: row.get(4)?,
        labels: labels(row, 5)?,
        created_at: time(row, 6)?,
        updated_at: time(row, 7)?,
    })
}

pub(in super::super) fn find(conn: &Connection, project: &ProjectRef) -> Result<Project> {
    let found = match project {
        ProjectRef::Slug { organization, project } => match organization {
            OrganizationRef::Name(name) => conn
                .prepare_cached(&format!("SELECT {COLUMNS} {LIVE} AND o.name = ?1 AND p.slug = ?2"))?
                .query_row((name, project), from_row),
            OrganizationRef::Id(id) => conn
                .prepare_cached(&format!("SELECT {COLUMNS} {LIVE} AND o.id = ?1 AND p.slug = ?2"))?
                .query_row((id, project), from_row),
        }
        .optional()?,
        ProjectRef::Id(id) => conn
            .prepare_cached(&format!("SELECT {COLUMNS} {LIVE} AND p.id = ?1"))?
            .query_row([id], from_row)
            .optional()?,
    };
    match (found, project) {
        (Some(found), _) => Ok(found),
        // Says which of the two is missing.
        (None, ProjectRef::Slug { organization, .. }) => {
            organizations::find(conn, organization).and(Err(StoreError::NotFound(Object::Project)))
        }
        (None, ProjectRef::Id(_)) => Err(StoreError::NotFound(Object::Project)),
    }
}

pub(in super::super) fn list(
    conn: &Connection,
    organization: &OrganizationRef,
    labels: &Labels,
    page: &Page,
) -> Result<Vec<Project>> {
    let organization = organizations::find(conn, organization)?;
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM projects p WHERE p.organization_id = ?1 AND p.deleted_at IS NULL AND {LABELS_MATCH}
             AND p.slug > ?3 ORDER BY p.slug LIMIT ?4"
    ))?;
    let rows = statement.query_map(
        (organization.id, labels_text(labels), page.after(), page.limit()),
        from_row,
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn refuse_taken(tx: &Tx<'_>, organization: OrganizationId, slug: &str) -> Result<()> {
    let taken = "SELECT 1 FROM projects WHERE organization_id = ?1 AND slug = ?2 AND deleted_at IS NULL";
    if tx.conn.prepare_cached(taken)?.exists((organization, slug))? {
        return Err(StoreError::Conflict(Object::Project));
    }
    Ok(())
}

pub(in super::super) fn create(tx: &Tx<'_>, new: &NewProject, by: &By) -> Result<Project> {
    let organization = organizations::find(tx.conn, &new.organization)?;
    refuse_taken(tx, organization.id, new.slug.as_str())?;
    let id = ProjectId::new();
    tx.conn
        .prepare_cached(
            "INSERT INTO projects (id, organization_id, slug, display_name, description, labels, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        )?
        .execute((
            id,
            organization.id,
            new.slug.as_str(),
            &new.display_name,
            &new.description,
            LabelsText(new.labels.clone()),
            At(tx.now),
        ))?;
    for environment in &new.environments {
        environments::insert(tx, id, environment)?;
    }
    if let Some(key) = &new.key {
        keys::insert(tx, Owner::Project(id), key)?;
    }
    let metadata = Metadata {
        environments: new.environments.iter().map(|it| it.slug.to_string()).collect(),
        key_prefix: new.key.as_ref().map(|key| key.prefix.clone()),
        ..Metadata::default()
    };
    let project = find(tx.conn, &ProjectRef::Id(id))?;
    record(
        tx,
        &project,
        Entry::new(Kind::Project, Verb::Create).metadata(metadata),
        by,
    )?;
    Ok(project)
}

pub(in super::super) fn update(
    tx: &Tx<'_>,
    project: &ProjectRef,
    update: &ProjectUpdate,
    expect: &Expect<Project>,
    by: &By,
) -> Result<Project> {
    let before = find(tx.conn, project)?;
    expect.check(Object::Project, &before)?;
    let after = Project {
        display_name: update.display_name.clone(),
        description: update.description.clone(),
        labels: update.labels.clone().unwrap_or_else(|| before.labels.clone()),
        ..before.clone()
    };
    change(tx, &before, &after, by)
}

pub(in super::super) fn edit(tx: &Tx<'_>, project: &ProjectRef, edit: ProjectEdit, by: &By) -> Result<Project> {
    let before = find(tx.conn, project)?;
    let slug = edit.slug.map_or_else(|| before.slug.clone(), Slug::into_string);
    let followed = if before.display_name == before.slug {
        slug.clone()
    } else {
        before.display_name.clone()
    };
    let after = Project {
        display_name: edit.display_name.unwrap_or(followed),
        description: edit.description.over(before.description.clone()),
        slug,
        ..before.clone()
    };
    if after.slug != before.slug {
        if before.labels.contains_key(OWNER_LABEL) {
            return Err(Refusal::Managed.into());
        }
        refuse_taken(tx, before.organization, &after.slug)?;
    }
    change(tx, &before, &after, by)
}

/// What differs is written and named in the entry.
fn change(tx: &Tx<'_>, before: &Project, after: &Project, by: &By) -> Result<Project> {
    let fields = changed(&[
        ("name", before.slug != after.slug),
        ("display_name", before.display_name != after.display_name),
        ("description", before.description != after.description),
        ("labels", before.labels != after.labels),
    ]);
    if fields.is_empty() {
        return Ok(before.clone());
    }
    tx.conn
        .prepare_cached(
            "UPDATE projects SET slug = ?2, display_name = ?3, description = ?4, labels = ?5, updated_at = ?6
             WHERE id = ?1",
        )?
        .execute((
            before.id,
            &after.slug,
            &after.display_name,
            &after.description,
            LabelsText(after.labels.clone()),
            At(tx.now),
        ))?;
    let renamed = before.slug != after.slug;
    let metadata = Metadata {
        fields,
        old_name: renamed.then(|| before.slug.clone()),
        ..Metadata::default()
    };
    let verb = if renamed { Verb::Rename } else { Verb::Update };
    record(tx, after, Entry::new(Kind::Project, verb).metadata(metadata), by)?;
    let part = if renamed { Part::Itself } else { Part::Aside };
    tx.publish(Topic::Project(before.id).part(part));
    find(tx.conn, &ProjectRef::Id(before.id))
}

pub(in super::super) fn delete(tx: &Tx<'_>, project: &ProjectRef, (fate, by): (Fate, &By)) -> Result<TrashId> {
    let project = find(tx.conn, project)?;
    tx.conn
        .prepare_cached("UPDATE projects SET deleted_at = ?2 WHERE id = ?1")?
        .execute((project.id, At(tx.now)))?;
    keys::remove_all(tx, Owner::Project(project.id))?;
    record(tx, &project, Entry::new(Kind::Project, Verb::Delete), by)?;
    tx.publish(Topic::Project(project.id));
    let deleted = Deleted {
        organization: project.organization,
        project: project.id,
        environment: None,
        what: What::Project,
        name: &project.slug,
    };
    trash::put(tx, &deleted, (fate, by))
}

pub(in super::super) fn rotate_key(
    tx: &Tx<'_>,
    project: &ProjectRef,
    key: &NewKey,
    overlap_seconds: u64,
    by: &By,
) -> Result<Rotated> {
    let project = find(tx.conn, project)?;
    let (id, rotated) = keys::rotate(tx, Owner::Project(project.id), key, overlap_seconds)?;
    let metadata = Metadata {
        key_prefix: Some(key.prefix.clone()),
        overlap_seconds: Some(overlap_seconds),
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Key, Verb::Rotate)
        .resource(id.0, &key.prefix)
        .at(&project.slug, None)
        .metadata(metadata);
    tx.audit(Chain::Organization(project.organization), entry, by)?;
    tx.publish(Topic::Project(project.id).part(Part::Aside));
    Ok(rotated)
}

fn record(tx: &Tx<'_>, project: &Project, entry: Entry, by: &By) -> Result<()> {
    let entry = entry.resource(project.id.0, &project.slug).at(&project.slug, None);
    tx.audit(Chain::Organization(project.organization), entry, by)
}

/// The names of the fields that differ.
pub(super) fn changed(fields: &[(&str, bool)]) -> Vec<String> {
    let differ = fields.iter().filter(|(_, differs)| *differs);
    differ.map(|(name, _)| (*name).to_owned()).collect()
}

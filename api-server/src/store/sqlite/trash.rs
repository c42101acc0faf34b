use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::wire::trash::TrashKind;

use super::super::error::Refusal;
use super::super::watch::{EVERY_VERSION, Part};
use super::super::{Creator, Fate, Location, Object, Result, StoreError, Topic, TrashPage, Trashed};
use super::purge;
use super::reader::View;
use super::row::{At, Id, integer, number, optional_id, time};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Metadata, Verb};
use crate::ids::{ConfigurationId, EnvironmentId, OrganizationId, ProjectId, SecretId, TrashId};

struct KindWord(TrashKind);

impl FromSql for KindWord {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        let kind = TrashKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        kind.map(Self).ok_or(FromSqlError::InvalidType)
    }
}

/// What is thrown away, and what it is in.
pub(super) struct Deleted<'a> {
    pub(super) organization: OrganizationId,
    pub(super) project: ProjectId,
    pub(super) environment: Option<EnvironmentId>,
    pub(super) what: What,
    pub(super) name: &'a str,
}

impl<'a> Deleted<'a> {
    /// In an environment, or the environment itself.
    pub(super) fn at(location: &Location, what: What, name: &'a str) -> Self {
        Self {
            organization: location.organization,
            project: location.project,
            environment: Some(location.environment),
            what,
            name,
        }
    }
}

pub(super) enum What {
    Project,
    Environment,
    Secret(SecretId),
    /// These versions, first and last, in the environment.
    Versions(SecretId, [u64; 2]),
    Configuration(ConfigurationId),
}

/// Notes a deletion behind its audit entry, so that it can be undone, or that it is to go for good.
pub(super) fn put(tx: &Tx<'_>, deleted: &Deleted<'_>, (fate, by): (Fate, &By)) -> Result<TrashId> {
    let (kind, secret, configuration, versions) = match deleted.what {
        What::Project => (TrashKind::Project, None, None, None),
        What::Environment => (TrashKind::Environment, None, None, None),
        What::Secret(id) => (TrashKind::Secret, Some(id), None, None),
        What::Versions(id, versions) => (TrashKind::SecretVersions, Some(id), None, Some(versions)),
        What::Configuration(id) => (TrashKind::Configuration, None, Some(id), None),
    };
    let id = TrashId::new();
    tx.conn
        .prepare_cached(
            "INSERT INTO trash (id, organization_id, kind, project_id, environment_id, secret_id, configuration_id, name,
                 from_number, to_number, deleted_at, deleted_by_type, deleted_by_id, deleted_by_name)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(rusqlite::params![
            id,
            deleted.organization,
            kind.as_str(),
            deleted.project,
            deleted.environment,
            secret,
            configuration,
            deleted.name,
            versions.map(|[from, _]| integer(from)),
            versions.map(|[_, to]| integer(to)),
            At(tx.now),
            by.actor.kind.as_str(),
            by.actor.id.map(Id),
            by.actor.name,
        ])?;
    match fate {
        Fate::Trash => {}
        Fate::Purge => purge::begin(tx, id, by)?,
    }
    Ok(id)
}

/// Without what is being purged.
const SELECT: &str = "SELECT t.id, t.organization_id, t.kind, t.name, t.project_id, p.slug, t.environment_id, e.slug,
        coalesce(t.configuration_id, t.secret_id, t.environment_id, t.project_id), t.from_number, t.to_number,
        t.deleted_at, t.deleted_by_type, t.deleted_by_id, t.deleted_by_name
    FROM trash t JOIN projects p ON p.id = t.project_id LEFT JOIN environments e ON e.id = t.environment_id
    WHERE t.purging = 0";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Trashed> {
    let environment: Option<EnvironmentId> = row.get(6)?;
    let versions = match row.get::<_, Option<i64>>(9)? {
        Some(_) => Some([number(row, 9)?, number(row, 10)?]),
        None => None,
    };
    Ok(Trashed {
        id: row.get(0)?,
        organization: row.get(1)?,
        kind: row.get::<_, KindWord>(2)?.0,
        name: row.get(3)?,
        project: row.get(4)?,
        project_slug: row.get(5)?,
        environment: environment.zip(row.get(7)?),
        object: row.get::<_, Id>(8)?.0,
        versions,
        deleted_at: time(row, 11)?,
        deleted_by: Creator {
            kind: row.get(12)?,
            id: optional_id(row, 13)?,
            name: row.get(14)?,
        },
    })
}

pub(in super::super) fn list(
    view: &View<'_>,
    organization: OrganizationId,
    page: TrashPage,
    permits: &dyn Fn(&Trashed) -> bool,
) -> Result<Vec<Trashed>> {
    let limit = page.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut statement = view.conn.prepare_cached(&format!(
        "{SELECT} AND t.organization_id = ?1 AND t.id < ?2 ORDER BY t.id DESC"
    ))?;
    // No id is as high as that.
    let after = page.after.unwrap_or(TrashId(uuid::Uuid::max()));
    let mut rows = statement.query((organization, after))?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        view.go_on()?;
        found.extend(Some(from_row(row)?).filter(permits));
    }
    Ok(found)
}

pub(in super::super) fn find(conn: &Connection, organization: OrganizationId, id: TrashId) -> Result<Trashed> {
    match by_id(conn, id)? {
        Some(found) if found.organization == organization => Ok(found),
        _ => Err(StoreError::NotFound(Object::TrashItem)),
    }
}

pub(super) fn by_id(conn: &Connection, id: TrashId) -> Result<Option<Trashed>> {
    let mut statement = conn.prepare_cached(&format!("{SELECT} AND t.id = ?1"))?;
    Ok(statement.query_row([id], from_row).optional()?)
}

pub(in super::super) fn restore(tx: &Tx<'_>, organization: OrganizationId, id: TrashId, by: &By) -> Result<Trashed> {
    let item = find(tx.conn, organization, id)?;
    refuse_without_parents(tx.conn, &item)?;
    let (taken, object) = name_is_taken(tx.conn, &item)?;
    if taken {
        return Err(Refusal::NameTaken(object).into());
    }
    revive(tx, &item)?;
    tx.conn
        .prepare_cached("DELETE FROM trash WHERE id = ?1")?
        .execute([id])?;
    record(tx, &item, (Verb::Restore, false), by)?;
    // Whoever waits in the environment, or in any of the project, finds more there.
    let project = Topic::Project(item.project);
    let within = item
        .environment
        .as_ref()
        .map_or(project, |(id, _)| Topic::Environment(*id));
    let name = item.name.clone();
    tx.publish(match item.kind {
        TrashKind::SecretVersions => within.part(Part::Secret(name, item.versions.unwrap_or(EVERY_VERSION))),
        TrashKind::Configuration => within.part(Part::Configurations),
        TrashKind::Secret => project.part(Part::Secret(name, EVERY_VERSION)),
        // Nobody waits in what was deleted, and the others of its project do not see it.
        TrashKind::Environment => project.part(Part::Aside),
        TrashKind::Project => project.into(),
    });
    Ok(item)
}

/// What it was in must be there.
fn refuse_without_parents(conn: &Connection, item: &Trashed) -> Result<()> {
    let is_live = |sql: &str, id: uuid::Uuid| -> Result<bool> { Ok(conn.prepare_cached(sql)?.exists([Id(id)])?) };
    let project = "SELECT 1 FROM projects WHERE id = ?1 AND deleted_at IS NULL";
    let environment = "SELECT 1 FROM environments WHERE id = ?1 AND deleted_at IS NULL";
    let secret = "SELECT 1 FROM secrets WHERE id = ?1 AND deleted_at IS NULL";
    if item.kind != TrashKind::Project && !is_live(project, item.project.0)? {
        return Err(Refusal::ParentDeleted(Object::Project).into());
    }
    if matches!(item.kind, TrashKind::SecretVersions | TrashKind::Configuration)
        && let Some((id, _)) = &item.environment
        && !is_live(environment, id.0)?
    {
        return Err(Refusal::ParentDeleted(Object::Environment).into());
    }
    if item.kind == TrashKind::SecretVersions && !is_live(secret, item.object)? {
        return Err(Refusal::ParentDeleted(Object::Secret).into());
    }
    Ok(())
}

fn name_is_taken(conn: &Connection, item: &Trashed) -> Result<(bool, Object)> {
    let (object, taken) = match item.kind {
        TrashKind::Project => (
            Object::Project,
            conn.prepare_cached(
                "SELECT 1 FROM projects WHERE organization_id = ?1 AND slug = ?2 AND deleted_at IS NULL",
            )?
            .exists((item.organization, &item.name))?,
        ),
        TrashKind::Environment => (
            Object::Environment,
            conn.prepare_cached(
                "SELECT 1 FROM environments WHERE project_id = ?1 AND slug = ?2 AND deleted_at IS NULL",
            )?
            .exists((item.project, &item.name))?,
        ),
        TrashKind::Secret => (
            Object::Secret,
            conn.prepare_cached("SELECT 1 FROM secrets WHERE project_id = ?1 AND name = ?2 AND deleted_at IS NULL")?
                .exists((item.project, &item.name))?,
        ),
        TrashKind::SecretVersions => {
            let (environment, _) = item.environment.as_ref().ok_or_else(without_environment)?;
            (
                Object::Version,
                super::values::has_visible(conn, SecretId(item.object), *environment)?,
            )
        }
        TrashKind::Configuration => {
            let (environment, _) = item.environment.as_ref().ok_or_else(without_environment)?;
            (
                Object::Configuration,
                conn.prepare_cached(
                    "SELECT 1 FROM configurations WHERE environment_id = ?1 AND key = ?2 AND deleted_at IS NULL",
                )?
                .exists((environment, &item.name))?,
            )
        }
    };
    Ok((taken, object))
}

fn without_environment() -> StoreError {
    StoreError::Internal("a row of the trash lacks its environment".into())
}

fn revive(tx: &Tx<'_>, item: &Trashed) -> Result<()> {
    let sql = match item.kind {
        TrashKind::Project => "UPDATE projects SET deleted_at = NULL WHERE id = ?1",
        TrashKind::Environment => "UPDATE environments SET deleted_at = NULL WHERE id = ?1",
        TrashKind::Secret => "UPDATE secrets SET deleted_at = NULL WHERE id = ?1",
        TrashKind::Configuration => "UPDATE configurations SET deleted_at = NULL WHERE id = ?1",
        TrashKind::SecretVersions => "DELETE FROM hidden_versions WHERE trash_id = ?1",
    };
    let id = match item.kind {
        TrashKind::SecretVersions => item.id.0,
        _ => item.object,
    };
    tx.conn.prepare_cached(sql)?.execute([Id(id)])?;
    Ok(())
}

/// An entry about what is, or was, in the trash.
pub(super) fn record(tx: &Tx<'_>, item: &Trashed, (verb, purged): (Verb, bool), by: &By) -> Result<()> {
    let metadata = Metadata {
        range: item.versions,
        purged,
        ..Metadata::default()
    };
    let environment = item.environment.as_ref().map(|(_, slug)| slug.as_str());
    let entry = Entry::new(item.audit_kind(), verb)
        .resource(item.object, &item.name)
        .at(&item.project_slug, environment)
        .metadata(metadata);
    tx.audit(Chain::Organization(item.organization), entry, by)
}

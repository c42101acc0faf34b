use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::wire::people::Role;

use super::super::error::{Crowd, Refusal};
use super::super::{Grantor, Object, Organization, OrganizationRef, Page, Result, StoreError, Topic};
use super::members;
use super::row::{At, time};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{OrganizationId, UserId};

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: row.get(0)?,
        name: row.get(1)?,
        created_at: time(row, 2)?,
        updated_at: time(row, 3)?,
    })
}

pub(in super::super) fn find(conn: &Connection, organization: &OrganizationRef) -> Result<Organization> {
    match organization {
        OrganizationRef::Name(name) => by_name(conn, name),
        OrganizationRef::Id(id) => by_id(conn, *id),
    }
}

pub(in super::super) fn by_name(conn: &Connection, name: &str) -> Result<Organization> {
    let mut statement = conn.prepare_cached(
        "SELECT id, name, created_at, updated_at FROM organizations WHERE name = ?1 AND deleted_at IS NULL",
    )?;
    let found = statement.query_row([name], from_row).optional()?;
    found.ok_or(StoreError::NotFound(Object::Organization))
}

pub(super) fn by_id(conn: &Connection, id: OrganizationId) -> Result<Organization> {
    let mut statement = conn.prepare_cached(
        "SELECT id, name, created_at, updated_at FROM organizations WHERE id = ?1 AND deleted_at IS NULL",
    )?;
    let found = statement.query_row([id], from_row).optional()?;
    found.ok_or(StoreError::NotFound(Object::Organization))
}

pub(in super::super) fn list(conn: &Connection, page: &Page) -> Result<Vec<Organization>> {
    let mut statement = conn.prepare_cached(
        "SELECT id, name, created_at, updated_at FROM organizations
         WHERE deleted_at IS NULL AND name > ?1 ORDER BY name LIMIT ?2",
    )?;
    let rows = statement.query_map((page.after(), page.limit()), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in super::super) fn ensure(tx: &Tx<'_>, name: &str, by: &By) -> Result<Organization> {
    match by_name(tx.conn, name) {
        Err(StoreError::NotFound(_)) => insert(tx, name, by),
        found => found,
    }
}

pub(in super::super) fn create(tx: &Tx<'_>, name: &str, owner: Option<UserId>, by: &By) -> Result<Organization> {
    if is_taken(tx, name)? {
        return Err(StoreError::Conflict(Object::Organization));
    }
    if let Some(owner) = owner
        && members::owned(tx.conn, owner)? >= Crowd::OrganizationsOfAnOwner.limit()
    {
        return Err(Refusal::TooMany(Crowd::OrganizationsOfAnOwner).into());
    }
    let organization = insert(tx, name, by)?;
    if let Some(owner) = owner {
        members::insert(tx, organization.id, owner, Role::Owner)?;
    }
    Ok(organization)
}

fn is_taken(tx: &Tx<'_>, name: &str) -> Result<bool> {
    match by_name(tx.conn, name) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn insert(tx: &Tx<'_>, name: &str, by: &By) -> Result<Organization> {
    let id = OrganizationId::new();
    tx.conn
        .prepare_cached("INSERT INTO organizations (id, name, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)")?
        .execute((id, name, At(tx.now)))?;
    let organization = by_id(tx.conn, id)?;
    record_in_both(tx, &organization, Verb::Create, by)?;
    Ok(organization)
}

/// By id: the name may have gone over to another organization since the call was let in.
pub(in super::super) fn rename(
    tx: &Tx<'_>,
    id: OrganizationId,
    new_name: &str,
    (grantor, by): (Grantor, &By),
) -> Result<Organization> {
    let organization = by_id(tx.conn, id)?;
    members::within_reach(tx, id, grantor, Role::Owner)?;
    if organization.name == new_name {
        return Ok(organization);
    }
    if is_taken(tx, new_name)? {
        return Err(StoreError::Conflict(Object::Organization));
    }
    tx.conn
        .prepare_cached("UPDATE organizations SET name = ?2, updated_at = ?3 WHERE id = ?1")?
        .execute((organization.id, new_name, At(tx.now)))?;
    let metadata = Metadata {
        fields: vec!["name".to_owned()],
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Org, Verb::Rename)
        .resource(organization.id.0, new_name)
        .metadata(metadata);
    tx.audit(Chain::Organization(organization.id), entry, by)?;
    tx.publish(Topic::Organization(organization.id));
    by_id(tx.conn, organization.id)
}

pub(in super::super) fn delete(tx: &Tx<'_>, id: OrganizationId, (grantor, by): (Grantor, &By)) -> Result<()> {
    let organization = by_id(tx.conn, id)?;
    members::within_reach(tx, id, grantor, Role::Owner)?;
    tx.conn
        .prepare_cached("UPDATE organizations SET deleted_at = ?2, updated_at = ?2 WHERE id = ?1")?
        .execute((organization.id, At(tx.now)))?;
    record_in_both(tx, &organization, Verb::Delete, by)?;
    tx.publish(Topic::Organization(organization.id));
    Ok(())
}

/// Organizations come and go on record of the instance too: their own chain cannot be read once they are gone.
fn record_in_both(tx: &Tx<'_>, organization: &Organization, verb: Verb, by: &By) -> Result<()> {
    for chain in [Chain::Instance, Chain::Organization(organization.id)] {
        let entry = Entry::new(Kind::Org, verb).resource(organization.id.0, &organization.name);
        tx.audit(chain, entry, by)?;
    }
    Ok(())
}

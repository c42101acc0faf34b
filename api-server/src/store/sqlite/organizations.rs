use rusqlite::{Connection, OptionalExtension, Row};

use super::super::{Object, Organization, Result, StoreError};
use super::row::{At, time};
use super::writer::Tx;
use crate::audit::{By, Chain, Entry, Kind, Verb};
use crate::ids::OrganizationId;

fn from_row(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: row.get(0)?,
        name: row.get(1)?,
        created_at: time(row, 2)?,
        updated_at: time(row, 3)?,
    })
}

pub(in super::super) fn find(conn: &Connection, name: &str) -> Result<Organization> {
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

pub(in super::super) fn ensure(tx: &Tx<'_>, name: &str, by: &By) -> Result<Organization> {
    match find(tx.conn, name) {
        Err(StoreError::NotFound(_)) => {}
        found => return found,
    }
    let id = OrganizationId::new();
    tx.conn
        .prepare_cached("INSERT INTO organizations (id, name, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)")?
        .execute((id, name, At(tx.now)))?;
    for chain in [Chain::Instance, Chain::Organization(id)] {
        tx.audit(chain, Entry::new(Kind::Org, Verb::Create).resource(id.0, name), by)?;
    }
    by_id(tx.conn, id)
}

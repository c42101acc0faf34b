use rusqlite::{Connection, OptionalExtension, Row, Rows};
use sealpod_core::Time;
use sealpod_core::kubernetes::OWNER_LABEL;

use super::super::{
    Account, AccountScope, NewAccount, Object, OrganizationRef, Page, ProjectRef, Result, Rotated, StoreError, Subject,
    Topic,
};
use super::keys::{self, Owner};
use super::reader::View;
use super::row::{At, LabelsText, labels, optional_time, time};
use super::tx::Tx;
use super::{acl, organizations, projects};
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::crypto::NewKey;
use crate::ids::{AccountId, OrganizationId, ProjectId};

/// The scope's project is shown even when it is deleted: the account is then good for nothing, and says so.
const SELECT: &str = "SELECT a.id, a.organization_id, a.name, p.id, p.slug, a.expires_at, a.labels, a.created_at,
        a.last_used_at,
        (SELECT k.prefix FROM api_keys k WHERE k.account_id = a.id ORDER BY k.created_at DESC, k.id DESC LIMIT 1)
    FROM service_accounts a LEFT JOIN projects p ON p.id = a.project_id
    WHERE a.deleted_at IS NULL";

fn from_row(row: &Row<'_>) -> rusqlite::Result<Account> {
    let project = match (row.get::<_, Option<ProjectId>>(3)?, row.get(4)?) {
        (Some(id), Some(slug)) => Some(AccountScope { id, slug }),
        _ => None,
    };
    Ok(Account {
        id: row.get(0)?,
        organization: row.get(1)?,
        name: row.get(2)?,
        project,
        expires_at: optional_time(row, 5)?,
        labels: labels(row, 6)?,
        created_at: time(row, 7)?,
        last_used_at: optional_time(row, 8)?,
        key_prefix: row.get::<_, Option<String>>(9)?.unwrap_or_default(),
    })
}

pub(super) fn by_id(conn: &Connection, id: AccountId) -> Result<Account> {
    let mut statement = conn.prepare_cached(&format!("{SELECT} AND a.id = ?1"))?;
    let found = statement.query_row([id], from_row).optional()?;
    found.ok_or(StoreError::NotFound(Object::ServiceAccount))
}

pub(super) fn in_organization(conn: &Connection, organization: OrganizationId, id: AccountId) -> Result<Account> {
    match by_id(conn, id)? {
        account if account.organization == organization => Ok(account),
        _ => Err(StoreError::NotFound(Object::ServiceAccount)),
    }
}

pub(in super::super) fn find(conn: &Connection, organization: &OrganizationRef, id: AccountId) -> Result<Account> {
    in_organization(conn, organizations::find(conn, organization)?.id, id)
}

pub(in super::super) fn list(
    view: &View<'_>,
    organization: &OrganizationRef,
    name: Option<&str>,
    page: &Page,
) -> Result<Vec<Account>> {
    let organization = organizations::find(view.conn, organization)?.id;
    // One name is looked up, not come across on a walk past all the others.
    let named = if name.is_some() {
        "AND a.name = ?4"
    } else {
        "AND ?4 IS NULL"
    };
    let sql = format!("{SELECT} AND a.organization_id = ?1 {named} AND a.name > ?2 ORDER BY a.name LIMIT ?3");
    let mut statement = view.conn.prepare_cached(&sql)?;
    gather(view, statement.query((organization, page.after(), page.limit(), name))?)
}

/// The accounts that an operator made and that nobody has used since `before`, by name.
pub(in super::super) fn orphans(
    view: &View<'_>,
    organization: &OrganizationRef,
    before: Time,
    page: &Page,
) -> Result<Vec<Account>> {
    let organization = organizations::find(view.conn, organization)?.id;
    // By the index of what is long unused: few, of accounts that may be many. The `+` keeps the names' index out of it.
    let sql = format!(
        "{SELECT} AND json_extract(a.labels, '$.\"{OWNER_LABEL}\"') IS NOT NULL AND a.organization_id = ?1
         AND coalesce(a.last_used_at, a.created_at) < ?2 AND +a.name > ?3 ORDER BY +a.name LIMIT ?4"
    );
    let mut statement = view.conn.prepare_cached(&sql)?;
    gather(
        view,
        statement.query((organization, At(before), page.after(), page.limit()))?,
    )
}

fn gather(view: &View<'_>, mut rows: Rows<'_>) -> Result<Vec<Account>> {
    let mut accounts = vec![];
    while let Some(row) = rows.next()? {
        view.go_on()?;
        accounts.push(from_row(row)?);
    }
    Ok(accounts)
}

pub(in super::super) fn create(tx: &Tx<'_>, new: &NewAccount, by: &By) -> Result<Account> {
    let organization = organizations::find(tx.conn, &new.organization)?;
    let scope = match &new.project {
        Some(slug) => Some(projects::find(tx.conn, &ProjectRef::slug(organization.id, slug))?.id),
        None => None,
    };
    let taken = "SELECT 1 FROM service_accounts WHERE organization_id = ?1 AND name = ?2 AND deleted_at IS NULL";
    if tx.conn.prepare_cached(taken)?.exists((organization.id, &new.name))? {
        return Err(StoreError::Conflict(Object::ServiceAccount));
    }
    let id = AccountId::new();
    tx.conn
        .prepare_cached(
            "INSERT INTO service_accounts
                 (id, organization_id, project_id, name, labels, expires_at, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        )?
        .execute((
            id,
            organization.id,
            scope,
            &new.name,
            LabelsText(new.labels.clone()),
            new.expires_at.map(At),
            At(tx.now),
        ))?;
    keys::insert(tx, Owner::Account(id), &new.key)?;
    let account = by_id(tx.conn, id)?;
    let metadata = Metadata {
        key_prefix: Some(new.key.prefix.clone()),
        ..Metadata::default()
    };
    record(tx, &account, Verb::Create, metadata, by)?;
    Ok(account)
}

pub(in super::super) fn rotate(
    tx: &Tx<'_>,
    organization: &OrganizationRef,
    id: AccountId,
    key: &NewKey,
    overlap_seconds: u64,
    by: &By,
) -> Result<Rotated> {
    let account = find(tx.conn, organization, id)?;
    let (_, rotated) = keys::rotate(tx, Owner::Account(id), key, overlap_seconds)?;
    let metadata = Metadata {
        key_prefix: Some(key.prefix.clone()),
        overlap_seconds: Some(overlap_seconds),
        ..Metadata::default()
    };
    record(tx, &account, Verb::Rotate, metadata, by)?;
    Ok(rotated)
}

pub(in super::super) fn revoke(tx: &Tx<'_>, organization: &OrganizationRef, id: AccountId, by: &By) -> Result<()> {
    let account = find(tx.conn, organization, id)?;
    tx.conn
        .prepare_cached("UPDATE service_accounts SET deleted_at = ?2, updated_at = ?2 WHERE id = ?1")?
        .execute((id, At(tx.now)))?;
    keys::remove_all(tx, Owner::Account(id))?;
    let rules = acl::delete_of_subject(tx, account.organization, Subject::ServiceAccount(id))?;
    let metadata = Metadata {
        rules_revoked: Some(rules),
        ..Metadata::default()
    };
    record(tx, &account, Verb::Delete, metadata, by)
}

fn record(tx: &Tx<'_>, account: &Account, verb: Verb, metadata: Metadata, by: &By) -> Result<()> {
    let mut entry = Entry::new(Kind::ServiceAccount, verb)
        .resource(account.id.0, &account.name)
        .metadata(metadata);
    entry.project = account.project.as_ref().map(|scope| scope.slug.clone());
    tx.audit(Chain::Organization(account.organization), entry, by)?;
    tx.publish(Topic::Subject(account.id.0));
    Ok(())
}

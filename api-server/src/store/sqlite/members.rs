use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Email;
use sealpod_core::wire::people::Role;

use super::super::error::Refusal;
use super::super::{
    Grantor, Membership, Object, Organization, OrganizationMember, OrganizationRef, Page, Result, StoreError, Subject,
    Topic,
};
use super::row::{At, number, time};
use super::tx::Tx;
use super::{acl, organizations, people};
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{OrganizationId, UserId};

struct RoleWord(Role);

impl FromSql for RoleWord {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word = value.as_str()?;
        let role = Role::ALL.into_iter().find(|role| role.as_str() == word);
        role.map(Self).ok_or(FromSqlError::InvalidType)
    }
}

const SELECT: &str = "SELECT m.organization_id, m.user_id, u.email, m.role, m.created_at
    FROM members m JOIN users u ON u.id = m.user_id WHERE m.organization_id = ?1";

fn from_row(row: &Row<'_>) -> rusqlite::Result<OrganizationMember> {
    Ok(OrganizationMember {
        organization: row.get(0)?,
        user: row.get(1)?,
        email: row.get(2)?,
        role: row.get::<_, RoleWord>(3)?.0,
        created_at: time(row, 4)?,
    })
}

pub(in super::super) fn membership(conn: &Connection, user: UserId, organization: &str) -> Result<Membership> {
    // Strangers and names that nobody has cost the same statement and get the same answer.
    let mut statement = conn.prepare_cached(
        "SELECT o.id, o.name, o.created_at, o.updated_at, m.role FROM organizations o
         JOIN members m ON m.organization_id = o.id AND m.user_id = ?2
         WHERE o.name = ?1 AND o.deleted_at IS NULL",
    )?;
    let found = statement
        .query_row((organization, user), |row| {
            Ok((organizations::from_row(row)?, row.get::<_, RoleWord>(4)?.0))
        })
        .optional()?;
    let (organization, role) = found.ok_or(StoreError::NotFound(Object::Organization))?;
    let rules = acl::of_subject(conn, organization.id, Subject::User(user))?;
    Ok(Membership {
        organization,
        role,
        rules,
    })
}

pub(in super::super) fn of_user(conn: &Connection, user: UserId, page: &Page) -> Result<Vec<(Organization, Role)>> {
    let mut statement = conn.prepare_cached(
        "SELECT o.id, o.name, o.created_at, o.updated_at, m.role FROM members m
         JOIN organizations o ON o.id = m.organization_id AND o.deleted_at IS NULL
         WHERE m.user_id = ?1 AND o.name > ?2 ORDER BY o.name LIMIT ?3",
    )?;
    let rows = statement.query_map((user, page.after(), page.limit()), |row| {
        Ok((organizations::from_row(row)?, row.get::<_, RoleWord>(4)?.0))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether some live organization has a member of this address.
pub(super) fn is_anywhere(conn: &Connection, email: &Email) -> Result<bool> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM users u JOIN members m ON m.user_id = u.id
         JOIN organizations o ON o.id = m.organization_id AND o.deleted_at IS NULL WHERE u.email = ?1",
    )?;
    Ok(statement.exists([email.as_str()])?)
}

/// How many live organizations the user owns.
pub(super) fn owned(conn: &Connection, user: UserId) -> Result<u64> {
    let mut statement = conn.prepare_cached(
        "SELECT count(*) FROM members m JOIN organizations o ON o.id = m.organization_id AND o.deleted_at IS NULL
         WHERE m.user_id = ?1 AND m.role = 'owner'",
    )?;
    Ok(statement.query_row([user], |row| number(row, 0))?)
}

pub(in super::super) fn list(
    conn: &Connection,
    organization: &OrganizationRef,
    page: &Page,
) -> Result<Vec<OrganizationMember>> {
    let organization = organizations::find(conn, organization)?;
    let mut statement = conn.prepare_cached(&format!("{SELECT} AND u.email > ?2 ORDER BY u.email LIMIT ?3"))?;
    let rows = statement.query_map((organization.id, page.after(), page.limit()), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(in super::super) fn find(
    conn: &Connection,
    organization: &OrganizationRef,
    user: UserId,
) -> Result<OrganizationMember> {
    in_organization(conn, organizations::find(conn, organization)?.id, user)
}

pub(super) fn in_organization(
    conn: &Connection,
    organization: OrganizationId,
    user: UserId,
) -> Result<OrganizationMember> {
    let mut statement = conn.prepare_cached(&format!("{SELECT} AND m.user_id = ?2"))?;
    let found = statement.query_row((organization, user), from_row).optional()?;
    found.ok_or(StoreError::NotFound(Object::Member))
}

pub(in super::super) fn by_email(
    conn: &Connection,
    organization: &OrganizationRef,
    email: &Email,
) -> Result<OrganizationMember> {
    // One statement, so that an address which somebody elsewhere has costs what one that nobody has does.
    let organization = organizations::find(conn, organization)?;
    let mut statement = conn.prepare_cached(&format!("{SELECT} AND u.email = ?2"))?;
    let found = statement
        .query_row((organization.id, email.as_str()), from_row)
        .optional()?;
    found.ok_or(StoreError::NotFound(Object::Member))
}

pub(in super::super) fn add(
    tx: &Tx<'_>,
    organization: &OrganizationRef,
    email: &Email,
    role: Role,
    (grantor, by): (Grantor, &By),
) -> Result<OrganizationMember> {
    let organization = organizations::find(tx.conn, organization)?.id;
    within_reach(tx, organization, grantor, role.max(Role::Admin))?;
    let user = people::ensure(tx, email)?;
    if in_organization(tx.conn, organization, user.id).is_ok() {
        return Err(StoreError::Conflict(Object::Member));
    }
    insert(tx, organization, user.id, role)?;
    let member = in_organization(tx.conn, organization, user.id)?;
    record(tx, &member, Verb::Create, by)?;
    Ok(member)
}

pub(super) fn insert(tx: &Tx<'_>, organization: OrganizationId, user: UserId, role: Role) -> Result<()> {
    tx.conn
        .prepare_cached(
            "INSERT INTO members (organization_id, user_id, role, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        )?
        .execute((organization, user, role.as_str(), At(tx.now)))?;
    Ok(())
}

pub(in super::super) fn change_role(
    tx: &Tx<'_>,
    organization: &OrganizationRef,
    user: UserId,
    role: Role,
    (grantor, by): (Grantor, &By),
) -> Result<OrganizationMember> {
    let before = find(tx.conn, organization, user)?;
    within_reach(tx, before.organization, grantor, Role::Owner)?;
    if before.role == role {
        return Ok(before);
    }
    keep_an_owner(tx, &before)?;
    tx.conn
        .prepare_cached("UPDATE members SET role = ?3, updated_at = ?4 WHERE organization_id = ?1 AND user_id = ?2")?
        .execute((before.organization, user, role.as_str(), At(tx.now)))?;
    let member = OrganizationMember { role, ..before };
    record(tx, &member, Verb::Update, by)?;
    Ok(member)
}

pub(in super::super) fn remove(
    tx: &Tx<'_>,
    organization: &OrganizationRef,
    user: UserId,
    (grantor, by): (Grantor, &By),
) -> Result<()> {
    let member = find(tx.conn, organization, user)?;
    within_reach(tx, member.organization, grantor, member.role.max(Role::Admin))?;
    keep_an_owner(tx, &member)?;
    tx.conn
        .prepare_cached("DELETE FROM members WHERE organization_id = ?1 AND user_id = ?2")?
        .execute((member.organization, user))?;
    acl::delete_of_subject(tx, member.organization, Subject::User(user))?;
    record(tx, &member, Verb::Delete, by)
}

/// Whether the grantor has at least this role, in this very transaction: whoever was demoted while the call was under
/// way has it no more.
pub(super) fn within_reach(tx: &Tx<'_>, organization: OrganizationId, grantor: Grantor, role: Role) -> Result<()> {
    let Grantor::Member(user) = grantor else { return Ok(()) };
    match in_organization(tx.conn, organization, user) {
        Ok(own) if own.role >= role => Ok(()),
        // One who was removed a moment ago has no role at all.
        Ok(_) | Err(StoreError::NotFound(_)) => Err(Refusal::AboveOwnRole.into()),
        Err(error) => Err(error),
    }
}

/// Refuses to take away the only owner.
fn keep_an_owner(tx: &Tx<'_>, member: &OrganizationMember) -> Result<()> {
    if member.role != Role::Owner {
        return Ok(());
    }
    let mut others = tx
        .conn
        .prepare_cached("SELECT 1 FROM members WHERE organization_id = ?1 AND role = 'owner' AND user_id <> ?2")?;
    if others.exists((member.organization, member.user))? {
        Ok(())
    } else {
        Err(Refusal::LastOwner.into())
    }
}

fn record(tx: &Tx<'_>, member: &OrganizationMember, verb: Verb, by: &By) -> Result<()> {
    let metadata = Metadata {
        role: Some(member.role.as_str().to_owned()),
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Member, verb)
        .resource(member.user.0, &member.email)
        .metadata(metadata);
    tx.audit(Chain::Organization(member.organization), entry, by)?;
    tx.publish(Topic::Subject(member.user.0));
    Ok(())
}

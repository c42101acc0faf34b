use rusqlite::types::{FromSqlError, FromSqlResult, Type};
use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::wire::org::{Permission, SubjectType};
use uuid::Uuid;

use super::super::error::{Crowd, Refusal};
use super::super::{AclRule, NewRule, Object, OrganizationRef, Result, RuleQuery, StoreError, Subject, Topic};
use super::reader::View;
use super::row::{At, Id, PatternText, integer, time};
use super::tx::Tx;
use super::{accounts, members, organizations};
use crate::audit::{By, Chain, Entry, Kind, Metadata, RuleMetadata, Verb};
use crate::ids::{AccountId, OrganizationId, RuleId, UserId};

/// A service account has an id of its own, so no user is found for it.
const SELECT: &str = "SELECT r.id, r.organization_id, r.subject_type, r.subject_id, r.project_pattern, r.env_pattern,
        r.key_pattern, r.configurations, r.permission, r.created_at, r.updated_at, u.email
    FROM acl_rules r LEFT JOIN users u ON u.id = r.subject_id AND r.subject_type = 'user'
    WHERE r.deleted_at IS NULL";
const USER: &str = "user";
const SERVICE_ACCOUNT: &str = "service_account";

fn permission_word(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "read",
        Permission::Write => "write",
        Permission::Admin => "admin",
    }
}

fn kind_word(kind: SubjectType) -> &'static str {
    match kind {
        SubjectType::User => USER,
        SubjectType::ServiceAccount => SERVICE_ACCOUNT,
    }
}

fn subject_word(subject: Subject) -> &'static str {
    kind_word(subject.kind())
}

fn subject(kind: &str, id: Id) -> FromSqlResult<Subject> {
    match kind {
        USER => Ok(Subject::User(UserId(id.0))),
        SERVICE_ACCOUNT => Ok(Subject::ServiceAccount(AccountId(id.0))),
        _ => Err(FromSqlError::InvalidType),
    }
}

fn permission(word: &str) -> FromSqlResult<Permission> {
    match word {
        "read" => Ok(Permission::Read),
        "write" => Ok(Permission::Write),
        "admin" => Ok(Permission::Admin),
        _ => Err(FromSqlError::InvalidType),
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<AclRule> {
    let subject_type: String = row.get(2)?;
    let permission_word: String = row.get(8)?;
    let word = |at, error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error));
    Ok(AclRule {
        id: row.get(0)?,
        organization: row.get(1)?,
        subject: subject(&subject_type, row.get(3)?).map_err(|error| word(2, error))?,
        email: row.get(11)?,
        project_pattern: row.get::<_, PatternText>(4)?.0,
        env_pattern: row.get::<_, PatternText>(5)?.0,
        key_pattern: row.get::<_, PatternText>(6)?.0,
        configurations: row.get(7)?,
        permission: permission(&permission_word).map_err(|error| word(8, error))?,
        created_at: time(row, 9)?,
        updated_at: time(row, 10)?,
    })
}

fn by_id(conn: &Connection, organization: OrganizationId, id: RuleId) -> Result<AclRule> {
    let mut statement = conn.prepare_cached(&format!("{SELECT} AND r.organization_id = ?1 AND r.id = ?2"))?;
    let found = statement.query_row((organization, id), from_row).optional()?;
    found.ok_or(StoreError::NotFound(Object::AclRule))
}

pub(in super::super) fn find(conn: &Connection, organization: &OrganizationRef, id: RuleId) -> Result<AclRule> {
    by_id(conn, organizations::find(conn, organization)?.id, id)
}

/// By id, which is by age: it grows with the time at which it was made, and stays a place to go on from when the rule
/// itself is gone.
pub(in super::super) fn list(
    view: &View<'_>,
    organization: &OrganizationRef,
    query: RuleQuery,
) -> Result<Vec<AclRule>> {
    let organization = organizations::find(view.conn, organization)?.id;
    let kind = query.subject_type.map(kind_word);
    let after = Id(query.after.map_or(Uuid::nil(), |id| id.0));
    let limit = query.limit.map_or(-1, i64::from);
    let rest = "(?2 IS NULL OR r.subject_type = ?2) AND r.id > ?3 ORDER BY r.id LIMIT ?4";
    let mut rules = vec![];
    let mut take = |mut rows: rusqlite::Rows<'_>| -> Result<()> {
        while let Some(row) = rows.next()? {
            view.go_on()?;
            rules.push(from_row(row)?);
        }
        Ok(())
    };
    // Two statements, because each is to go by its own index.
    if let Some(subject) = query.subject_id {
        let sql = format!("{SELECT} AND r.organization_id = ?1 AND r.subject_id = ?5 AND {rest}");
        let mut statement = view.conn.prepare_cached(&sql)?;
        take(statement.query((organization, kind, after, limit, Id(subject)))?)?;
    } else {
        let sql = format!("{SELECT} AND r.organization_id = ?1 AND {rest}");
        let mut statement = view.conn.prepare_cached(&sql)?;
        take(statement.query((organization, kind, after, limit))?)?;
    }
    Ok(rules)
}

pub(super) fn of_subject(conn: &Connection, organization: OrganizationId, subject: Subject) -> Result<Vec<AclRule>> {
    let mut statement = conn.prepare_cached(&format!(
        "{SELECT} AND r.subject_id = ?1 AND r.organization_id = ?2 AND r.subject_type = ?3 ORDER BY r.id"
    ))?;
    let rows = statement.query_map((Id(subject.id()), organization, subject_word(subject)), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Deletes all rules of a subject; answers how many.
pub(super) fn delete_of_subject(tx: &Tx<'_>, organization: OrganizationId, subject: Subject) -> Result<u64> {
    let deleted = tx
        .conn
        .prepare_cached(
            "UPDATE acl_rules SET deleted_at = ?4
             WHERE subject_id = ?1 AND organization_id = ?2 AND subject_type = ?3 AND deleted_at IS NULL",
        )?
        .execute((Id(subject.id()), organization, subject_word(subject), At(tx.now)))?;
    Ok(deleted as u64)
}

pub(in super::super) fn upsert(
    tx: &Tx<'_>,
    organization: &OrganizationRef,
    new: &NewRule,
    by: &By,
) -> Result<(AclRule, bool)> {
    let organization = organizations::find(tx.conn, organization)?.id;
    check_subject(tx.conn, organization, new.subject)?;
    let (id, verb) = match same(tx.conn, organization, new)? {
        Some(rule) if rule.permission == new.permission && rule.configurations == new.configurations => {
            return Ok((rule, false));
        }
        Some(rule) => {
            tx.conn
                .prepare_cached(
                    "UPDATE acl_rules SET permission = ?2, configurations = ?3, updated_at = ?4 WHERE id = ?1",
                )?
                .execute((rule.id, permission_word(new.permission), new.configurations, At(tx.now)))?;
            (rule.id, Verb::Update)
        }
        None => (insert(tx, organization, new)?, Verb::Grant),
    };
    let rule = by_id(tx.conn, organization, id)?;
    record(tx, &rule, verb, by)?;
    Ok((rule, verb == Verb::Grant))
}

/// The rule of this subject with these patterns. Found by index: a subject may have any number of others, and everybody
/// waits for the writer.
fn same(conn: &Connection, organization: OrganizationId, new: &NewRule) -> Result<Option<AclRule>> {
    let mut statement = conn.prepare_cached(&format!(
        "{SELECT} AND r.subject_id = ?1 AND r.organization_id = ?2 AND r.subject_type = ?3
            AND r.project_pattern = ?4 AND r.env_pattern = ?5 AND r.key_pattern = ?6"
    ))?;
    let found = statement.query_row(
        (
            Id(new.subject.id()),
            organization,
            subject_word(new.subject),
            new.project_pattern.as_str(),
            new.env_pattern.as_str(),
            new.key_pattern.as_str(),
        ),
        from_row,
    );
    Ok(found.optional()?)
}

fn insert(tx: &Tx<'_>, organization: OrganizationId, new: &NewRule) -> Result<RuleId> {
    let held: i64 = tx
        .conn
        .prepare_cached(
            "SELECT count(*) FROM acl_rules
             WHERE subject_id = ?1 AND organization_id = ?2 AND subject_type = ?3 AND deleted_at IS NULL",
        )?
        .query_row((Id(new.subject.id()), organization, subject_word(new.subject)), |row| {
            row.get(0)
        })?;
    if held >= integer(Crowd::RulesOfASubject.limit()) {
        return Err(Refusal::TooMany(Crowd::RulesOfASubject).into());
    }
    let id = RuleId::new();
    tx.conn
        .prepare_cached(
            "INSERT INTO acl_rules (id, organization_id, subject_type, subject_id, project_pattern, env_pattern,
                 key_pattern, configurations, permission, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        )?
        .execute(rusqlite::params![
            id,
            organization,
            subject_word(new.subject),
            Id(new.subject.id()),
            new.project_pattern.as_str(),
            new.env_pattern.as_str(),
            new.key_pattern.as_str(),
            new.configurations,
            permission_word(new.permission),
            At(tx.now),
        ])?;
    Ok(id)
}

pub(in super::super) fn delete(tx: &Tx<'_>, organization: &OrganizationRef, id: RuleId, by: &By) -> Result<()> {
    let rule = find(tx.conn, organization, id)?;
    tx.conn
        .prepare_cached("UPDATE acl_rules SET deleted_at = ?2 WHERE id = ?1")?
        .execute((id, At(tx.now)))?;
    record(tx, &rule, Verb::Revoke, by)
}

/// A rule is for somebody of this organization.
fn check_subject(conn: &Connection, organization: OrganizationId, subject: Subject) -> Result<()> {
    let found = match subject {
        Subject::ServiceAccount(id) => accounts::in_organization(conn, organization, id).map(drop),
        Subject::User(id) => members::in_organization(conn, organization, id).map(drop),
    };
    found.map_err(|error| match error {
        StoreError::NotFound(_) => StoreError::NotFound(Object::Subject),
        other => other,
    })
}

fn record(tx: &Tx<'_>, rule: &AclRule, verb: Verb, by: &By) -> Result<()> {
    let metadata = Metadata {
        rule: Some(RuleMetadata {
            subject_type: subject_word(rule.subject).to_owned(),
            subject_id: rule.subject.id(),
            project_pattern: rule.project_pattern.to_string(),
            env_pattern: rule.env_pattern.to_string(),
            key_pattern: rule.key_pattern.to_string(),
            configurations: rule.configurations,
            permission: permission_word(rule.permission).to_owned(),
        }),
        ..Metadata::default()
    };
    let mut entry = Entry::new(Kind::Acl, verb).metadata(metadata);
    entry.resource_id = Some(rule.id.0);
    tx.audit(Chain::Organization(rule.organization), entry, by)?;
    tx.publish(Topic::Subject(rule.subject.id()));
    Ok(())
}

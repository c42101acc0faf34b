use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql};
use sealpod_core::Time;

use super::super::{AccountKey, ApplicationKey, KeyHolder, ProjectRef, Result, Rotated, StoreError, Subject};
use super::row::{At, integer, optional_time};
use super::tx::Tx;
use super::{accounts, acl, organizations, projects};
use crate::crypto::{ApiKeyKind, KeyDigest, NewKey};
use crate::ids::{AccountId, KeyId, ProjectId};

/// Most keys that an owner has at a time.
const MAX_KEYS: usize = 8;

#[derive(Clone, Copy)]
pub(super) enum Owner {
    Account(AccountId),
    Project(ProjectId),
}

impl Owner {
    fn kind(&self) -> ApiKeyKind {
        match self {
            Self::Account(_) => ApiKeyKind::ServiceAccount,
            Self::Project(_) => ApiKeyKind::Application,
        }
    }

    fn column(&self) -> &'static str {
        match self {
            Self::Account(_) => "account_id",
            Self::Project(_) => "project_id",
        }
    }

    fn id(&self) -> &dyn ToSql {
        match self {
            Self::Account(id) => id,
            Self::Project(id) => id,
        }
    }
}

pub(super) fn insert(tx: &Tx<'_>, owner: Owner, key: &NewKey) -> Result<KeyId> {
    if key.kind != owner.kind() {
        return Err(StoreError::Internal(
            "a key was made for another plane than its owner's".into(),
        ));
    }
    let id = KeyId::new();
    let sql = format!(
        "INSERT INTO api_keys (id, {}, digest, prefix, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        owner.column()
    );
    tx.conn
        .prepare_cached(&sql)?
        .execute((id, owner.id(), key.digest, &key.prefix, At(tx.now)))?;
    Ok(id)
}

/// Adds a key. Earlier ones keep their deadline or get one `overlap_seconds` from now, whichever is sooner; those that
/// are dead by then, and those beyond the newest eight, are removed.
pub(super) fn rotate(tx: &Tx<'_>, owner: Owner, key: &NewKey, overlap_seconds: u64) -> Result<(KeyId, Rotated)> {
    let deadline = tx.now.plus_seconds(integer(overlap_seconds));
    let column = owner.column();
    let shorten = format!("UPDATE api_keys SET expires_at = min(coalesce(expires_at, ?2), ?2) WHERE {column} = ?1");
    tx.conn.prepare_cached(&shorten)?.execute((owner.id(), At(deadline)))?;
    let bury = format!(
        "DELETE FROM api_keys WHERE {column} = ?1 AND (expires_at <= ?2 OR id NOT IN
            (SELECT id FROM api_keys WHERE {column} = ?1 ORDER BY created_at DESC, id DESC LIMIT {}))",
        MAX_KEYS - 1
    );
    tx.conn.prepare_cached(&bury)?.execute((owner.id(), At(tx.now)))?;
    let last = format!("SELECT max(expires_at) FROM api_keys WHERE {column} = ?1");
    let old_key_expires_at = tx
        .conn
        .prepare_cached(&last)?
        .query_row([owner.id()], |row| optional_time(row, 0))?;
    Ok((insert(tx, owner, key)?, Rotated { old_key_expires_at }))
}

pub(super) fn remove_all(tx: &Tx<'_>, owner: Owner) -> Result<()> {
    let sql = format!("DELETE FROM api_keys WHERE {} = ?1", owner.column());
    tx.conn.prepare_cached(&sql)?.execute([owner.id()])?;
    Ok(())
}

/// Whose key this is, as of `clock`.
pub(in super::super) fn find(conn: &Connection, digest: &KeyDigest, clock: Time) -> Result<Option<KeyHolder>> {
    let found = conn
        .prepare_cached(
            "SELECT account_id, project_id, expires_at FROM api_keys
             WHERE digest = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
        )?
        .query_row((digest, At(clock)), |row| {
            Ok((
                row.get::<_, Option<AccountId>>(0)?,
                row.get::<_, Option<ProjectId>>(1)?,
                optional_time(row, 2)?,
            ))
        })
        .optional()?;
    let holder = match found {
        Some((Some(account), _, expires_at)) => account_key(conn, account, expires_at, clock),
        Some((None, Some(project), expires_at)) => projects::find(conn, &ProjectRef::Id(project))
            .map(|project| Some(KeyHolder::Application(Arc::new(ApplicationKey { project, expires_at })))),
        _ => Ok(None),
    };
    match holder {
        Err(StoreError::NotFound(_)) => Ok(None),
        holder => holder,
    }
}

fn account_key(conn: &Connection, id: AccountId, expires_at: Option<Time>, clock: Time) -> Result<Option<KeyHolder>> {
    let account = accounts::by_id(conn, id)?;
    if account.expires_at.is_some_and(|end| end <= clock) {
        return Ok(None);
    }
    let organization = organizations::by_id(conn, account.organization)?;
    let rules = acl::of_subject(conn, organization.id, Subject::ServiceAccount(id))?;
    Ok(Some(KeyHolder::Account(Arc::new(AccountKey {
        expires_at: [expires_at, account.expires_at].into_iter().flatten().min(),
        organization,
        account,
        rules,
    }))))
}

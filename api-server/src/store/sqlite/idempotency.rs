use rusqlite::OptionalExtension;
use sealpod_core::Time;
use uuid::Uuid;

use super::super::{Done, Result, StoreError};
use super::reader::View;
use super::rewrap;
use super::row::{At, Id, optional_id};
use super::tx::Tx;
use crate::crypto::Sealed;
use crate::idempotency::Claim;

/// How long a request counts as done.
const KEPT_SECONDS: i64 = 24 * 3_600;
/// How many old ones each new one takes along, so that there are never many.
const SWEPT: u32 = 8;

/// What was noted then or before is forgotten.
fn forgotten(now: Time) -> At {
    At(now.plus_seconds(-KEPT_SECONDS))
}

pub(in super::super) fn find(view: &View<'_>, scope: &[u8; 32]) -> Result<Option<Done>> {
    let mut statement = view.conn.prepare_cached(
        "SELECT fingerprint, resource_id, sealed FROM idempotency WHERE scope = ?1 AND created_at > ?2",
    )?;
    let found = statement.query_row((scope, forgotten(view.now)), |row| {
        Ok(Done {
            fingerprint: row.get(0)?,
            resource: optional_id(row, 1)?,
            sealed: row.get(2)?,
        })
    });
    Ok(found.optional()?)
}

/// Notes, with the change, that it was done; `Repeated` where another execution has done it.
pub(super) fn claim(tx: &Tx<'_>, claim: &Claim, resource: Option<Uuid>) -> Result<()> {
    if insert(tx, claim, resource)? {
        sweep(tx, SWEPT)?;
        return Ok(());
    }
    // A change can have several entries, and a request several changes.
    let mine = "SELECT 1 FROM idempotency WHERE scope = ?1 AND attempt = ?2";
    if tx.conn.prepare_cached(mine)?.exists((claim.scope, Id(claim.attempt)))? {
        return Ok(());
    }
    Err(StoreError::Repeated)
}

/// Whether the scope was free.
fn insert(tx: &Tx<'_>, claim: &Claim, resource: Option<Uuid>) -> Result<bool> {
    let mut statement = tx.conn.prepare_cached(
        "INSERT INTO idempotency (scope, fingerprint, attempt, resource_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (scope) DO UPDATE SET fingerprint = ?2, attempt = ?3, resource_id = ?4, created_at = ?5,
             sealed = NULL
         WHERE created_at <= ?6",
    )?;
    let written = statement.execute((
        claim.scope,
        claim.fingerprint,
        Id(claim.attempt),
        resource.map(Id),
        At(tx.now),
        forgotten(tx.now),
    ))?;
    Ok(written > 0)
}

pub(in super::super) fn keep(tx: &Tx<'_>, claim: &Claim, sealed: &Sealed) -> Result<()> {
    rewrap::check(tx, sealed)?;
    insert(tx, claim, None)?;
    tx.conn
        .prepare_cached("UPDATE idempotency SET sealed = ?3 WHERE scope = ?1 AND attempt = ?2")?
        .execute((claim.scope, Id(claim.attempt), sealed))?;
    Ok(())
}

pub(in super::super) fn forget(tx: &Tx<'_>, limit: u32) -> Result<usize> {
    tx.gives_back();
    sweep(tx, limit)
}

fn sweep(tx: &Tx<'_>, limit: u32) -> Result<usize> {
    let mut statement = tx.conn.prepare_cached(
        "DELETE FROM idempotency WHERE rowid IN
             (SELECT rowid FROM idempotency WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
    )?;
    Ok(statement.execute((forgotten(tx.now), limit))?)
}

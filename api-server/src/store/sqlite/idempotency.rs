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

pub(in super::super) fn find(view: &View<'_>, scope: &[u8; 32]) -> Result<Option<Done>> {
    let mut statement = view
        .conn
        .prepare_cached("SELECT fingerprint, resource_id, sealed FROM idempotency WHERE scope = ?1")?;
    let found = statement.query_row([scope], |row| {
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
        return Ok(());
    }
    // A change can have several entries, and a request several changes.
    let mine = "SELECT 1 FROM idempotency WHERE scope = ?1 AND attempt = ?2";
    if tx.conn.prepare_cached(mine)?.exists((claim.scope, Id(claim.attempt)))? {
        return Ok(());
    }
    Err(StoreError::Repeated)
}

/// Whether the scope was free. It is not for as long as the note of another request is there, whatever the clock says: by
/// one that is ahead it would be done again.
fn insert(tx: &Tx<'_>, claim: &Claim, resource: Option<Uuid>) -> Result<bool> {
    let mut statement = tx.conn.prepare_cached(
        "INSERT INTO idempotency (scope, fingerprint, attempt, resource_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (scope) DO NOTHING",
    )?;
    let written = statement.execute((
        claim.scope,
        claim.fingerprint,
        Id(claim.attempt),
        resource.map(Id),
        At(tx.now),
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

pub(in super::super) fn forget(tx: &Tx<'_>, until: Time, limit: u32) -> Result<usize> {
    tx.gives_back();
    let mut statement = tx.conn.prepare_cached(
        "DELETE FROM idempotency WHERE rowid IN
             (SELECT rowid FROM idempotency WHERE created_at <= ?1 ORDER BY created_at LIMIT ?2)",
    )?;
    Ok(statement.execute((At(until), limit))?)
}

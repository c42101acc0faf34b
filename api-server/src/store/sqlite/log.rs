//! The audit table.

mod clock;
pub(in super::super) mod cut;
pub(super) mod runs;
mod search;

use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Time;

use super::super::{AuditReport, ChainReport, Result};
use super::reader::View;
use super::row::{At, Id, integer, number, optional_id, time};
use crate::audit::{self, AuditKey, Broken, By, Chain, Entry, GENESIS, Head, StoredEntry};

pub(in super::super) use search::page;

const COLUMNS: &str = "chain, seq, id, created_at, action, actor_type, actor_id, actor_name, resource_type, \
    resource_id, resource_name, project, environment, outcome, ip, user_agent, request_id, metadata, hash";

/// The last entry of a chain, as the next one needs it.
#[derive(Clone, Copy)]
pub(super) struct End {
    seq: u64,
    hash: [u8; 32],
    at: Option<Time>,
}

pub(super) fn end(conn: &Connection, chain: Chain) -> Result<End> {
    let last = conn
        .prepare_cached("SELECT seq, hash, created_at FROM audit_entries WHERE chain = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([Id(chain.id())], |row| {
            Ok(End {
                seq: number(row, 0)?,
                hash: row.get(1)?,
                at: Some(time(row, 2)?),
            })
        })
        .optional()?;
    Ok(last.unwrap_or(End {
        seq: 0,
        hash: GENESIS,
        at: None,
    }))
}

/// Appends behind `end`, which is the chain's new end then; answers the new head.
pub(super) fn append(
    conn: &Connection,
    key: &AuditKey,
    now: Time,
    (chain, end): (Chain, &mut End),
    entry: Entry,
    by: &By,
) -> Result<Head> {
    let stored = key.seal(chain, end.seq + 1, &end.hash, now, entry, by);
    if end.at.is_some_and(|latest| now < latest) {
        clock::note_step(conn, chain, stored.seq)?;
    }
    let head = Head {
        chain,
        seq: stored.seq,
        hash: stored.hash,
    };
    conn.prepare_cached(
        "INSERT INTO audit_entries (chain, seq, id, created_at, action, actor_type, actor_id, actor_name,
             resource_type, resource_id, resource_name, project, environment, outcome, ip, user_agent, request_id,
             metadata, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?
    .execute(rusqlite::params![
        Id(stored.chain.id()),
        integer(stored.seq),
        Id(stored.id),
        At(stored.created_at),
        stored.action,
        stored.actor_type,
        stored.actor_id.map(Id),
        stored.actor_name,
        stored.resource_type,
        stored.resource_id.map(Id),
        stored.resource_name,
        stored.project,
        stored.environment,
        stored.outcome,
        stored.ip,
        stored.user_agent,
        stored.request_id,
        stored.metadata,
        stored.hash,
    ])?;
    *end = End {
        seq: head.seq,
        hash: head.hash,
        at: Some(now),
    };
    Ok(head)
}

/// Every chain that has entries.
pub(in super::super) fn chains(conn: &Connection) -> rusqlite::Result<Vec<Chain>> {
    // From one chain to the next: a look at each, however many entries it has.
    let mut following = conn.prepare("SELECT chain FROM audit_entries WHERE chain > ?1 ORDER BY chain LIMIT 1")?;
    let (mut chains, mut last) = (Vec::new(), Vec::new());
    while let Some(id) = following.query_row([&last], |row| row.get::<_, Id>(0)).optional()? {
        chains.push(Chain::of_id(id.0));
        last = id.0.as_bytes().to_vec();
    }
    Ok(chains)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredEntry> {
    Ok(StoredEntry {
        chain: Chain::of_id(row.get::<_, Id>(0)?.0),
        seq: number(row, 1)?,
        id: row.get::<_, Id>(2)?.0,
        created_at: time(row, 3)?,
        action: row.get(4)?,
        actor_type: row.get(5)?,
        actor_id: optional_id(row, 6)?,
        actor_name: row.get(7)?,
        resource_type: row.get(8)?,
        resource_id: optional_id(row, 9)?,
        resource_name: row.get(10)?,
        project: row.get(11)?,
        environment: row.get(12)?,
        outcome: row.get(13)?,
        ip: row.get(14)?,
        user_agent: row.get(15)?,
        request_id: row.get(16)?,
        metadata: row.get(17)?,
        hash: row.get(18)?,
    })
}

/// The entries behind `after`, oldest first.
pub(in super::super) fn following(view: &View<'_>, chain: Chain, after: u64, limit: u32) -> Result<Vec<StoredEntry>> {
    let sql = format!("SELECT {COLUMNS} FROM audit_entries WHERE chain = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3");
    let mut statement = view.conn.prepare_cached(&sql)?;
    let mut rows = statement.query((Id(chain.id()), integer(after), limit))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        view.go_on()?;
        entries.push(from_row(row)?);
    }
    Ok(entries)
}

/// Every chain, from the end of what was exported of it, or from its first entry.
pub(in super::super) fn verify(conn: &Connection, key: &AuditKey) -> Result<AuditReport> {
    let mut chains = cut::reports(conn, key)?;
    let sql = format!("SELECT {COLUMNS} FROM audit_entries ORDER BY chain, seq");
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let entry = from_row(row)?;
        let report = chains
            .entry(entry.chain)
            .or_insert_with(|| ChainReport::new(entry.chain));
        // What was exported goes bit by bit.
        if report.broken.is_some() || entry.seq < report.cut {
            continue;
        }
        if entry.seq == report.cut {
            let is_head = entry.hash == report.head;
            report.broken = (!is_head).then_some(Broken::Changed { seq: entry.seq });
            continue;
        }
        match audit::check(key, (report.cut + report.entries, report.head), &entry) {
            Ok(head) => {
                report.entries += 1;
                report.head = head;
            }
            Err(broken) => report.broken = Some(broken),
        }
    }
    for report in chains.values_mut() {
        // The newest entry of a chain is never dropped.
        if report.entries == 0 && report.broken.is_none() {
            report.broken = Some(Broken::Gone { seq: report.cut + 1 });
        }
    }
    Ok(AuditReport {
        chains: chains.into_values().collect(),
    })
}

#[cfg(test)]
mod tests;

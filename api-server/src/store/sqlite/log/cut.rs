//! What was exported of the chains, and taking it away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Time;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::super::super::{ChainReport, Dropped, MAX_SEGMENT, Result, StoreError};
use super::super::reader::View;
use super::super::row::{At, Id, integer, number, time};
use super::super::tx::Tx;
use crate::audit::{AuditKey, Broken, By, Chain, Entry, GENESIS, Kind, Metadata, Segment, Verb};

/// Most rows, and time, of one transaction that drops; and rows of one statement.
const MAX_ROWS: u64 = if cfg!(test) { 30 } else { 1_000 };
const MAX_TIME: Duration = Duration::from_millis(5);
const AT_ONCE: u64 = if cfg!(test) { 7 } else { 64 };

const COLUMNS: &str = "chain, first, last, previous, head, export, mac";

fn segment(row: &Row<'_>) -> rusqlite::Result<(Segment, Uuid, [u8; 32])> {
    let segment = Segment {
        chain: Chain::of_id(row.get::<_, Id>(0)?.0),
        first: number(row, 1)?,
        last: number(row, 2)?,
        previous: row.get(3)?,
        head: row.get(4)?,
    };
    Ok((segment, row.get::<_, Id>(5)?.0, row.get(6)?))
}

/// How far each chain was exported, for the walk along the rest. A row is believed by its MAC, and by following the one before.
pub(super) fn reports(conn: &Connection, key: &AuditKey) -> Result<BTreeMap<Chain, ChainReport>> {
    let mut reports: BTreeMap<Chain, ChainReport> = BTreeMap::new();
    let mut statement = conn.prepare(&format!("SELECT {COLUMNS} FROM audit_cuts ORDER BY chain, last"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (segment, export, mac) = segment(row)?;
        let report = reports
            .entry(segment.chain)
            .or_insert_with(|| ChainReport::new(segment.chain));
        if report.broken.is_some() {
            continue;
        }
        let is_ours = bool::from(segment.mac(key, export).ct_eq(&mac));
        if !is_ours || segment.first != report.cut + 1 || segment.previous != report.head {
            report.broken = Some(Broken::Cut { seq: segment.last });
        }
        (report.cut, report.cut_head, report.head) = (segment.last, segment.head, segment.head);
    }
    Ok(reports)
}

/// How far a chain was exported, and the hash there.
fn last_cut(conn: &Connection, chain: Chain) -> Result<(u64, [u8; 32])> {
    let found = conn
        .prepare_cached("SELECT last, head FROM audit_cuts WHERE chain = ?1 ORDER BY last DESC LIMIT 1")?
        .query_row([Id(chain.id())], |row| Ok((number(row, 0)?, row.get(1)?)));
    Ok(found.optional()?.unwrap_or((0, GENESIS)))
}

/// Which entries are to be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// None while nothing is older than this.
    pub begin: Time,
    /// Those that are older than this.
    pub cutoff: Time,
    /// What was made behind this is of a clock that was wrong.
    pub now: Time,
}

/// Whether the oldest entry that was not exported is old enough. Those of the future are passed over, and the chain's newest is
/// none of them.
pub(in super::super::super) fn is_due(view: &View<'_>, chain: Chain, ages: Ages) -> Result<bool> {
    let (cut, _) = last_cut(view.conn, chain)?;
    let mut statement = view.conn.prepare_cached(
        "SELECT created_at FROM audit_entries WHERE chain = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query((Id(chain.id()), integer(cut), integer(newest(view.conn, chain)?)))?;
    while let Some(row) = rows.next()? {
        view.go_on()?;
        let made = time(row, 0)?;
        if made <= ages.now {
            return Ok(made < ages.begin);
        }
    }
    Ok(false)
}

fn newest(conn: &Connection, chain: Chain) -> Result<u64> {
    let found = conn
        .prepare_cached("SELECT seq FROM audit_entries WHERE chain = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([Id(chain.id())], |row| number(row, 0));
    Ok(found.optional()?.unwrap_or(0))
}

/// The entries behind what was exported that are older than the cutoff, up to the first that is not; those of the future among
/// them go along. The newest one of the chain stays whatever its age: the next one follows it.
pub(in super::super::super) fn due(view: &View<'_>, chain: Chain, ages: Ages) -> Result<Option<Segment>> {
    let (cut, previous) = last_cut(view.conn, chain)?;
    let (id, newest) = (Id(chain.id()), newest(view.conn, chain)?);
    let mut statement = view.conn.prepare_cached(
        "SELECT seq, created_at, hash FROM audit_entries WHERE chain = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query((id, integer(cut), integer(newest)))?;
    let mut found: Option<(u64, [u8; 32])> = None;
    while let Some(row) = rows.next()? {
        view.go_on()?;
        let (seq, made) = (number(row, 0)?, time(row, 1)?);
        let is_enough = found.is_some() && seq > cut + MAX_SEGMENT;
        if is_enough || (ages.cutoff..=ages.now).contains(&made) {
            break;
        }
        if made < ages.cutoff {
            found = Some((seq, row.get(2)?));
        }
    }
    Ok(found.map(|(last, head)| Segment {
        chain,
        first: cut + 1,
        last,
        previous,
        head,
    }))
}

/// Puts on record that these were exported, after which they may go.
pub(in super::super::super) fn store(
    tx: &Tx<'_>,
    key: &AuditKey,
    segments: &[Segment],
    (export, name): (Uuid, &str),
    by: &By,
) -> Result<()> {
    for segment in segments {
        // Nobody else cuts; if somebody did, what was exported is not what would go.
        if last_cut(tx.conn, segment.chain)? != segment.begin() {
            return Err(StoreError::Internal(
                "the audit log was cut by somebody else meanwhile".into(),
            ));
        }
        insert(tx.conn, key, segment, export, tx.now)?;
    }
    let metadata = Metadata {
        count: Some(segments.iter().map(Segment::entries).sum()),
        purged: true,
        ..Metadata::default()
    };
    let entry = Entry::new(Kind::Backup, Verb::Create).resource(export, name);
    tx.audit(Chain::Instance, entry.metadata(metadata), by)
}

/// Whether entries went, or may go, behind this export.
pub(in super::super::super) fn is_cut(conn: &Connection, export: Uuid) -> Result<bool> {
    Ok(conn
        .prepare_cached("SELECT 1 FROM audit_cuts WHERE export = ?1 LIMIT 1")?
        .exists([Id(export)])?)
}

pub(super) fn insert(conn: &Connection, key: &AuditKey, segment: &Segment, export: Uuid, now: Time) -> Result<()> {
    conn.prepare_cached(
        "INSERT INTO audit_cuts (chain, first, last, previous, head, export, cut_at, mac)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        Id(segment.chain.id()),
        integer(segment.first),
        integer(segment.last),
        segment.previous,
        segment.head,
        Id(export),
        At(now),
        segment.mac(key, export),
    ))?;
    Ok(())
}

/// Chains that still have something of what was exported.
pub(in super::super::super) fn leftovers(conn: &Connection) -> Result<Vec<Chain>> {
    let mut left = Vec::new();
    for chain in super::chains(conn)? {
        let (cut, _) = last_cut(conn, chain)?;
        let entry = "SELECT 1 FROM audit_entries WHERE chain = ?1 AND seq <= ?2 LIMIT 1";
        let run = "SELECT 1 FROM audit_runs WHERE chain = ?1 AND last <= ?2 AND complete = 1 LIMIT 1";
        for sql in [entry, run] {
            if conn.prepare_cached(sql)?.exists((Id(chain.id()), integer(cut)))? {
                left.push(chain);
                break;
            }
        }
    }
    Ok(left)
}

/// Drops some of what was exported, oldest first, with the lists that tell of it; `more` says whether anything is left.
pub(in super::super::super) fn drop_some(conn: &Connection, chain: Chain) -> Result<Dropped> {
    let (id, until) = (Id(chain.id()), Instant::now() + MAX_TIME);
    let (cut, _) = last_cut(conn, chain)?;
    let mut dropped = Dropped::default();
    let may_go_on = |dropped: &Dropped| dropped.rows() < MAX_ROWS && Instant::now() < until;
    // 1. Entries, and the steps of the clock among them.
    let mut first = conn.prepare_cached("SELECT seq FROM audit_entries WHERE chain = ?1 ORDER BY seq LIMIT 1")?;
    while may_go_on(&dropped) {
        let oldest: Option<u64> = first.query_row([id], |row| number(row, 0)).optional()?;
        let Some(oldest) = oldest.filter(|oldest| *oldest <= cut) else {
            break;
        };
        let last = cut.min(oldest + AT_ONCE - 1);
        for (table, count) in [("audit_entries", true), ("audit_clock_steps", false)] {
            let sql = format!("DELETE FROM {table} WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3");
            let rows = conn
                .prepare_cached(&sql)?
                .execute((id, integer(oldest), integer(last)))?;
            dropped.entries += if count { rows as u64 } else { 0 };
        }
    }
    // 2. The lists of runs that are gone as a whole, and these runs. One that is being made is left for another time.
    let mut runs = conn.prepare_cached(
        "SELECT id FROM audit_runs WHERE chain = ?1 AND last <= ?2 AND complete = 1 ORDER BY last LIMIT 1",
    )?;
    while may_go_on(&dropped) {
        let run: Option<i64> = runs.query_row((id, integer(cut)), |row| row.get(0)).optional()?;
        let Some(run) = run else {
            return Ok(dropped);
        };
        let sql = format!(
            "DELETE FROM audit_lists WHERE (run, subject, action, seq) IN
             (SELECT run, subject, action, seq FROM audit_lists WHERE run = ?1 LIMIT {AT_ONCE})"
        );
        let rows = conn.prepare_cached(&sql)?.execute([run])? as u64;
        dropped.lists += rows;
        if rows < AT_ONCE {
            conn.prepare_cached("DELETE FROM audit_runs WHERE id = ?1")?
                .execute([run])?;
        }
    }
    // What is left, or may be.
    dropped.more = true;
    Ok(dropped)
}

use rusqlite::types::FromSqlError;
use rusqlite::{OptionalExtension, Row};
use sealpod_core::Time;

use super::super::version::just_after;
use super::super::{ChangeEntry, ChangesPage, ChangesQuery, Edge, Position, Result};
use super::reader::View;
use super::row::{At, Id, integer, number, optional_id, optional_time};
use super::values::VISIBLE;
use crate::audit::{Chain, Kind, Metadata};
use crate::ids::OrganizationId;

pub(in super::super) fn position(view: &View<'_>, organization: OrganizationId) -> Result<Position> {
    Ok(Position {
        seq: end(view, organization, "DESC")?.unwrap_or(0),
        at: view.now,
    })
}

/// The first or the last number of the log.
fn end(view: &View<'_>, organization: OrganizationId, order: &str) -> Result<Option<u64>> {
    let sql = format!("SELECT seq FROM audit_entries WHERE chain = ?1 ORDER BY seq {order} LIMIT 1");
    let chain = Id(Chain::Organization(organization).id());
    let mut statement = view.conn.prepare_cached(&sql)?;
    Ok(statement.query_row([chain], |row| number(row, 0)).optional()?)
}

pub(in super::super) fn page(view: &View<'_>, query: &ChangesQuery) -> Result<ChangesPage> {
    let ChangesQuery {
        organization,
        after,
        limit,
    } = *query;
    let first = end(view, organization, "ASC")?.unwrap_or(1);
    let last = end(view, organization, "DESC")?.unwrap_or(0);
    if after.seq.saturating_add(1) < first || after.seq > last {
        return Ok(ChangesPage::Gone);
    }
    let (entries, upto) = entries(view, query, last)?;
    let Some(edges) = edges(view, organization, (after.at, view.now), limit)? else {
        return Ok(ChangesPage::Gone);
    };
    Ok(ChangesPage::Found {
        entries,
        edges,
        upto: Position {
            seq: upto,
            at: view.now,
        },
        more: upto < last,
        next_edge: next_edge(view)?,
    })
}

/// The changes behind a number, and the number up to which they are all of them.
fn entries(view: &View<'_>, query: &ChangesQuery, last: u64) -> Result<(Vec<ChangeEntry>, u64)> {
    // The condition is word by word that of the index.
    let mut statement = view.conn.prepare_cached(
        "SELECT seq, action, resource_id, resource_name, project, environment, metadata
         FROM audit_entries INDEXED BY audit_entries_changes
         WHERE chain = ?1 AND seq > ?2
             AND outcome = 'success' AND action <> 'secret.read' AND action <> 'secret.list'
         ORDER BY seq LIMIT ?3",
    )?;
    let chain = Id(Chain::Organization(query.organization).id());
    let mut rows = statement.query((chain, integer(query.after.seq), query.limit))?;
    let (mut entries, mut seq) = (Vec::new(), query.after.seq);
    let mut count = 0;
    while let Some(row) = rows.next()? {
        view.go_on()?;
        count += 1;
        seq = number(row, 0)?;
        entries.extend(entry(row)?);
    }
    // Behind the last change there are only reads.
    Ok((entries, if count < query.limit { last } else { seq }))
}

/// `None` for what goes for good: it was told when it was deleted, and there may be later versions of the same secret by
/// now. Only accounts go without having been deleted before.
fn entry(row: &Row<'_>) -> rusqlite::Result<Option<ChangeEntry>> {
    let action: String = row.get(1)?;
    let (kind, verb) = action.split_once('.').unwrap_or((&action, ""));
    let foreign = |error| rusqlite::Error::from(FromSqlError::other(error));
    let metadata: String = row.get(6)?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).map_err(|error| rusqlite::Error::from(FromSqlError::other(error)))?;
    let kind = kind.parse().map_err(foreign)?;
    if metadata.purged && kind != Kind::ServiceAccount {
        return Ok(None);
    }
    Ok(Some(ChangeEntry {
        kind,
        verb: verb.parse().map_err(foreign)?,
        resource: optional_id(row, 2)?,
        name: row.get(3)?,
        project: row.get(4)?,
        environment: row.get(5)?,
        subject: metadata.rule.map(|rule| rule.subject_id),
    }))
}

/// What began or ended between two looks at the clock, also where it was set back between them; `None` where that is more
/// than `limit`. A version that begins at an instant, or whose last instant was the one before, changes at it.
fn edges(
    view: &View<'_>,
    organization: OrganizationId,
    (one, other): (Time, Time),
    limit: u32,
) -> Result<Option<Vec<Edge>>> {
    let (from, to) = (one.min(other), one.max(other));
    let mut edges = Vec::new();
    for (index, window) in [
        ("versions_begin", "v.not_before > ?2 AND v.not_before <= ?3"),
        ("versions_end", "v.expires_at >= ?2 AND v.expires_at < ?3"),
    ] {
        let mut statement = view.conn.prepare_cached(&format!(
            "SELECT v.secret_id, s.name, p.slug, e.slug FROM versions v INDEXED BY {index}
             JOIN secrets s ON s.id = v.secret_id AND s.deleted_at IS NULL
             JOIN environments e ON e.id = v.environment_id AND e.deleted_at IS NULL
             JOIN projects p ON p.id = s.project_id AND p.deleted_at IS NULL AND p.organization_id = ?1
             WHERE {window} AND v.is_enabled = 1 AND {VISIBLE} LIMIT ?4"
        ))?;
        let mut rows = statement.query((organization, At(from), At(to), limit))?;
        while let Some(row) = rows.next()? {
            view.go_on()?;
            edges.push(Edge {
                secret: row.get(0)?,
                name: row.get(1)?,
                project: row.get(2)?,
                environment: row.get(3)?,
            });
        }
    }
    Ok((edges.len() < limit as usize).then_some(edges))
}

/// Of any version of anybody's, for that is one step in an index.
fn next_edge(view: &View<'_>) -> Result<Option<Time>> {
    let next = |sql: &str| -> Result<Option<Time>> {
        let mut statement = view.conn.prepare_cached(sql)?;
        let found = statement.query_row([At(view.now)], |row| optional_time(row, 0));
        Ok(found.optional()?.flatten())
    };
    let begins = next(
        "SELECT not_before FROM versions INDEXED BY versions_begin WHERE not_before > ?1 ORDER BY not_before LIMIT 1",
    )?;
    let ends = next(
        "SELECT expires_at FROM versions INDEXED BY versions_end WHERE expires_at >= ?1 ORDER BY expires_at LIMIT 1",
    )?;
    Ok([begins, ends.and_then(just_after)].into_iter().flatten().min())
}

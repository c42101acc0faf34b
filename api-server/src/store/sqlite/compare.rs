//! What two databases let people and workloads do, and which values they have, one against the other.

mod values;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::super::OpenError;
use super::super::backup::Comparison;
use super::open::{self, engine_error};
use super::own_log;

/// What is alive, in names that the statements below share. What was deleted can still have rows under it that were not: a restore
/// brings them back together with it.
const LIVE: &str = "
    WITH live_organizations AS (SELECT id, name FROM organizations WHERE deleted_at IS NULL),
    live_projects AS (
        SELECT p.id, p.slug, o.name AS organization
        FROM projects p JOIN live_organizations o ON o.id = p.organization_id WHERE p.deleted_at IS NULL),
    live_accounts AS (
        SELECT a.id, a.name, a.organization_id, a.project_id, a.expires_at, o.name AS organization
        FROM service_accounts a JOIN live_organizations o ON o.id = a.organization_id
        WHERE a.deleted_at IS NULL AND (a.project_id IS NULL OR a.project_id IN (SELECT id FROM live_projects))),
    live_keys AS (
        SELECT k.id, k.prefix, k.expires_at, 'service account ' || a.name || ' of organization ' || a.organization AS owner
        FROM api_keys k JOIN live_accounts a ON a.id = k.account_id
        UNION ALL
        SELECT k.id, k.prefix, k.expires_at, 'application ' || p.slug || ' of organization ' || p.organization
        FROM api_keys k JOIN live_projects p ON p.id = k.project_id),
    live_rules AS (
        SELECT r.*, o.name AS organization, json_array(hex(r.organization_id), hex(r.subject_id), r.project_pattern,
            r.env_pattern, r.key_pattern, r.configurations, r.permission) AS identity,
            'rule ' || r.permission || ' on ' || r.project_pattern || ' ' || r.env_pattern || ' ' || r.key_pattern
            || iif(r.configurations, ' and on configurations', '') || ' for ' AS line
        FROM acl_rules r JOIN live_organizations o ON o.id = r.organization_id WHERE r.deleted_at IS NULL)";

/// A table without which an older database has nothing of the kind; and for each row that is alive what has to be the same for it
/// to let in whom it lets in, and a line that tells people which it is. A deadline is the former: with another one, or with none,
/// it is not the same key.
const COMPARED: [(&str, &str); 7] = [
    (
        "organizations",
        "SELECT json_array('organization', hex(id), name), 'organization ' || name FROM live_organizations",
    ),
    (
        "projects",
        "SELECT json_array('project', hex(id), slug), 'project ' || slug || ' of organization ' || organization FROM live_projects",
    ),
    (
        "api_keys",
        "SELECT json_array('key', hex(id), expires_at), 'key ' || prefix || '… of ' || owner
            || coalesce(strftime(' until %Y-%m-%dT%H:%M:%SZ', expires_at / 1000000, 'unixepoch'), '') FROM live_keys",
    ),
    (
        "service_accounts",
        "SELECT json_array('account', hex(id), name, expires_at), 'service account ' || name || ' of organization ' || organization
            || coalesce(strftime(' until %Y-%m-%dT%H:%M:%SZ', expires_at / 1000000, 'unixepoch'), '') FROM live_accounts",
    ),
    (
        "acl_rules",
        "SELECT r.identity, r.line || 'service account ' || a.name || ' of organization ' || r.organization
         FROM live_rules r JOIN live_accounts a ON a.id = r.subject_id WHERE r.subject_type = 'service_account'",
    ),
    (
        "users",
        "SELECT r.identity, r.line || u.email || ' in organization ' || r.organization
         FROM live_rules r JOIN users u ON u.id = r.subject_id WHERE r.subject_type = 'user'",
    ),
    (
        "members",
        "SELECT json_array('member', hex(o.id), hex(u.id), m.role), 'member ' || u.email || ' (' || m.role || ') of organization ' || o.name
         FROM members m JOIN users u ON u.id = m.user_id JOIN live_organizations o ON o.id = m.organization_id",
    ),
];

pub(in super::super) fn compare(backup: &Path, live: &Path) -> Result<Comparison, OpenError> {
    let look = |path: &Path| {
        let connection = own_log::connect_to_look(path)?;
        open::inspect(&connection, path)?;
        // One instant, however long it takes.
        let begun = connection.execute_batch("BEGIN");
        begun.map_err(|error| engine_error(path, "cannot be compared", error))?;
        Ok::<_, OpenError>(connection)
    };
    let (there, here) = (look(backup)?, look(live)?);
    let lines = |connection, path| read(connection).map_err(|error| engine_error(path, "cannot be compared", error));
    let (backup_lines, live_lines) = (lines(&there, backup)?, lines(&here, live)?);
    let values = values::differences(&there, &here);
    Ok(Comparison {
        revives: beyond(&backup_lines, &live_lines),
        lacks: beyond(&live_lines, &backup_lines),
        values: values.map_err(|error| engine_error(live, "cannot be compared", error))?,
    })
}

/// The lines of a database, by what they stand for.
type Lines = BTreeMap<String, String>;

fn read(connection: &Connection) -> rusqlite::Result<Lines> {
    let mut lines = Lines::new();
    for (table, sql) in COMPARED {
        if !has_table(connection, table)? {
            continue;
        }
        let mut statement = connection.prepare(&format!("{LIVE} {sql}"))?;
        for line in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            lines.extend([line?]);
        }
    }
    Ok(lines)
}

/// Whether a database, of whatever schema, has this table.
pub(super) fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.prepare_cached(sql)?.exists([table])
}

/// What only the first one has, sorted.
fn beyond(one: &Lines, other: &Lines) -> Vec<String> {
    let only = one.iter().filter(|(identity, _)| !other.contains_key(*identity));
    let mut only: Vec<_> = only.map(|(_, line)| line.clone()).collect();
    only.sort_unstable();
    only
}

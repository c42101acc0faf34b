//! What two databases let people and workloads do, and which values they have, one against the other.

mod trash;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use uuid::Uuid;

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
    live_environments AS (
        SELECT e.id, e.slug, p.slug AS project, p.organization
        FROM environments e JOIN live_projects p ON p.id = e.project_id WHERE e.deleted_at IS NULL),
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
const COMPARED: [(&str, &str); 8] = [
    (
        "organizations",
        "SELECT json_array('organization', hex(id), name), 'organization ' || name FROM live_organizations",
    ),
    (
        "projects",
        "SELECT json_array('project', hex(id), slug), 'project ' || slug || ' of organization ' || organization FROM live_projects",
    ),
    (
        "environments",
        "SELECT json_array('environment', hex(id), slug), 'environment ' || slug || ' of project ' || project
            || ' of organization ' || organization FROM live_environments",
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
    let failed = |unread| match unread {
        Unread::There(error) => engine_error(backup, "cannot be compared", error),
        Unread::Here(error) => engine_error(live, "cannot be compared", error),
    };
    let (backup_lines, live_lines) = (
        read(&there).map_err(Unread::There).map_err(failed)?,
        read(&here).map_err(Unread::Here).map_err(failed)?,
    );
    let mut revives = beyond(&backup_lines, &live_lines);
    revives.extend(trash::purged_since(&there, &here).map_err(failed)?);
    revives.sort_unstable();
    Ok(Comparison {
        revives,
        lacks: beyond(&live_lines, &backup_lines),
        values: values::differences(&there, &here).map_err(failed)?,
        epochs: epochs(&there, &here).map_err(failed)?,
    })
}

/// Why one of the two could not be read: `there` the backup is, `here` the database of today.
#[derive(Debug)]
enum Unread {
    There(rusqlite::Error),
    Here(rusqlite::Error),
}

/// What a comparison comes to.
type Compared<T> = Result<T, Unread>;

/// Those that are known, where they are not the same.
fn epochs(there: &Connection, here: &Connection) -> Compared<Option<(Uuid, Uuid)>> {
    let both = (
        own_log::epoch(there).map_err(Unread::There)?,
        own_log::epoch(here).map_err(Unread::Here)?,
    );
    Ok(both.0.zip(both.1).filter(|(there, here)| there != here))
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

#[cfg(test)]
mod tests {
    use super::super::super::Options;
    use super::super::Engine;
    use super::*;
    use crate::crypto::{Keyring, generate_master_key};

    #[test]
    fn an_error_names_the_database_that_could_not_be_read() {
        let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
        for broken in ["there", "here"] {
            let folder = tempfile::tempdir().unwrap();
            let paths = ["there", "here"].map(|name| folder.path().join(name));
            for path in &paths {
                Engine::open(&Options::new(path), &keyring).unwrap().close();
            }
            // Where the values are compared, of both sides at a time.
            let connection = open::connect(&folder.path().join(broken), 64).unwrap();
            connection
                .execute_batch(
                    "INSERT INTO organizations (id, name, created_at, updated_at) VALUES (zeroblob(16), 'default', 1, 1);
                     INSERT INTO projects (id, organization_id, slug, display_name, labels, created_at, updated_at)
                        VALUES (zeroblob(16), zeroblob(16), 'shop', 'Shop', '{}', 1, 1);
                     INSERT INTO environments (id, project_id, slug, display_name, labels, created_at, updated_at)
                        VALUES (zeroblob(16), zeroblob(16), 'prod', 'Prod', '{}', 1, 1);
                     DROP INDEX secrets_live_name;",
                )
                .unwrap();
            drop(connection);
            let said = compare(&paths[0], &paths[1]).unwrap_err().to_string();
            let named = format!("{}: cannot be compared", folder.path().join(broken).display());
            assert!(said.starts_with(&named), "{said}");
        }
    }
}

//! What could be restored when a backup was made, and cannot be since: a restore of the backup brings it back into the trash.

use rusqlite::{Connection, Row, params};

use super::{Compared, Unread, has_table};

/// What can be restored, with the names of where it was. Older schemas have no trash, and nothing in it that could be told.
const RESTORABLE: &str = "
    SELECT t.id, t.kind, t.project_id, t.environment_id, t.secret_id, t.configuration_id, t.name, t.from_number, t.to_number,
        o.name, p.slug, e.slug
    FROM trash t JOIN organizations o ON o.id = t.organization_id AND o.deleted_at IS NULL
        LEFT JOIN projects p ON p.id = t.project_id LEFT JOIN environments e ON e.id = t.environment_id
    WHERE t.purging = 0";

/// Whether rows of it are left, live or deleted: by kind, what was deleted, and of versions the range.
const IS_LEFT: &str = "
    SELECT CASE ?1
        WHEN 'project' THEN EXISTS (SELECT 1 FROM projects WHERE id = ?2)
        WHEN 'environment' THEN EXISTS (SELECT 1 FROM environments WHERE id = ?3)
        WHEN 'secret' THEN EXISTS (SELECT 1 FROM secrets WHERE id = ?4)
        WHEN 'configuration' THEN EXISTS (SELECT 1 FROM configurations WHERE id = ?5)
        ELSE EXISTS (SELECT 1 FROM versions WHERE secret_id = ?4 AND environment_id = ?3 AND number BETWEEN ?6 AND ?7)
    END";

type Id = Option<Vec<u8>>;

/// A row of the trash.
struct Item {
    id: Id,
    kind: String,
    project: Id,
    environment: Id,
    secret: Id,
    configuration: Id,
    range: (Option<i64>, Option<i64>),
    line: String,
}

impl Item {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (kind, name): (String, String) = (row.get(1)?, row.get(6)?);
        let range: (Option<i64>, Option<i64>) = (row.get(7)?, row.get(8)?);
        let organization: String = row.get(9)?;
        let names: (Option<String>, Option<String>) = (row.get(10)?, row.get(11)?);
        let what = match (kind.as_str(), range) {
            ("secret_versions", (Some(from), Some(to))) => format!("versions {from} to {to} of secret {name}"),
            _ => format!("{kind} {name}"),
        };
        let within = match names {
            (Some(project), Some(environment)) if kind != "environment" => format!(" in {project}/{environment}"),
            (Some(project), _) if kind != "project" => format!(" in {project}"),
            _ => String::new(),
        };
        Ok(Self {
            id: row.get(0)?,
            project: row.get(2)?,
            environment: row.get(3)?,
            secret: row.get(4)?,
            configuration: row.get(5)?,
            kind,
            range,
            line: format!("{what}{within} of organization {organization} (in its trash, and purged since)"),
        })
    }

    fn is_left(&self, here: &Connection, has_trash: bool) -> rusqlite::Result<bool> {
        // Its purge can take several transactions.
        let purging = "SELECT 1 FROM trash WHERE id = ?1 AND purging = 1";
        if has_trash && here.prepare_cached(purging)?.exists([&self.id])? {
            return Ok(false);
        }
        let (from, to) = self.range;
        let of = params![
            self.kind,
            self.project,
            self.environment,
            self.secret,
            self.configuration,
            from,
            to
        ];
        here.prepare_cached(IS_LEFT)?.query_row(of, |row| row.get(0))
    }
}

/// A line each.
pub(super) fn purged_since(there: &Connection, here: &Connection) -> Compared<Vec<String>> {
    if !has_table(there, "trash").map_err(Unread::There)? {
        return Ok(Vec::new());
    }
    let has_trash = has_table(here, "trash").map_err(Unread::Here)?;
    let mut statement = there.prepare(RESTORABLE).map_err(Unread::There)?;
    let mut gone = Vec::new();
    for item in statement.query_map([], Item::read).map_err(Unread::There)? {
        let item = item.map_err(Unread::There)?;
        if !item.is_left(here, has_trash).map_err(Unread::Here)? {
            gone.push(item.line);
        }
    }
    Ok(gone)
}

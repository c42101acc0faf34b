//! Which secrets and configurations of two databases are not the same, by their numbers and states: no value is opened.
//!
//! Environment by environment, and of each by two cursors that go along an index: however many there are, two of them
//! are in memory, and as many lines as are kept.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rusqlite::{Connection, Row, Rows, Statement};

use super::super::super::backup::Differences;
use super::{Compared, Unread};

/// Where values are: names of the organization, the project and the environment.
type Place = (String, String, String);
/// Ids of the project and the environment.
type Ids = (Vec<u8>, Vec<u8>);

const PLACES: &str = "
    SELECT o.name, p.slug, e.slug, p.id, e.id
    FROM organizations o JOIN projects p ON p.organization_id = o.id JOIN environments e ON e.project_id = p.id
    WHERE o.deleted_at IS NULL AND p.deleted_at IS NULL AND e.deleted_at IS NULL";

/// Of each key of an environment the newest version that is not deleted, which it is, and what was done to those before
/// it. By what is in every schema.
pub(super) const SECRETS: &str = "
    SELECT s.name, v.number, hex(v.id),
        (SELECT group_concat(number, ', ') FROM versions d
         WHERE d.secret_id = s.id AND d.environment_id = v.environment_id AND d.is_enabled = 0),
        (SELECT group_concat(number || ' ' || coalesce(not_before, '') || ' ' || coalesce(expires_at, ''), ', ') FROM versions w
         WHERE w.secret_id = s.id AND w.environment_id = v.environment_id
            AND (w.not_before IS NOT NULL OR w.expires_at IS NOT NULL))
    FROM secrets s INDEXED BY secrets_live_name CROSS JOIN versions v
    WHERE s.project_id = ?1 AND s.deleted_at IS NULL AND v.environment_id = ?2 AND v.secret_id = s.id
        AND v.number = (
            SELECT n.number FROM versions n WHERE n.secret_id = s.id AND n.environment_id = ?2 AND NOT EXISTS (
                SELECT 1 FROM hidden_versions h WHERE h.secret_id = n.secret_id AND h.environment_id = n.environment_id
                    AND n.number BETWEEN h.from_number AND h.to_number)
            ORDER BY n.number DESC LIMIT 1)
    ORDER BY s.name";
pub(super) const CONFIGURATIONS: &str = "
    SELECT key, revision, hex(revision_id), NULL, NULL FROM configurations
    WHERE environment_id = ?2 AND deleted_at IS NULL AND ?1 IS NOT NULL ORDER BY key";

/// What each of them is called, and what its number is.
const KINDS: [(&str, &str, &str); 2] = [
    ("secret", "version", SECRETS),
    ("configuration", "revision", CONFIGURATIONS),
];

/// What a database has under a key.
#[derive(PartialEq, Eq)]
struct State {
    number: i64,
    id: String,
    disabled: Option<String>,
    windows: Option<String>,
}

impl State {
    fn read(row: &Row<'_>) -> rusqlite::Result<(String, Self)> {
        let state = Self {
            number: row.get(1)?,
            id: row.get(2)?,
            disabled: row.get(3)?,
            windows: row.get(4)?,
        };
        Ok((row.get(0)?, state))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        self.disabled
            .as_ref()
            .map_or(Ok(()), |numbers| write!(f, " (disabled: {numbers})"))
    }
}

/// The rows of one side, with the next one looked at.
struct Cursor<'s> {
    rows: Option<Rows<'s>>,
    next: Option<(String, State)>,
}

impl<'s> Cursor<'s> {
    fn new(rows: Option<Rows<'s>>) -> rusqlite::Result<Self> {
        let mut cursor = Self { rows, next: None };
        cursor.take()?;
        Ok(cursor)
    }

    fn take(&mut self) -> rusqlite::Result<Option<(String, State)>> {
        let following = match &mut self.rows {
            Some(rows) => rows.next()?.map(State::read).transpose()?,
            None => None,
        };
        Ok(std::mem::replace(&mut self.next, following))
    }
}

/// `there` the backup is, `here` the database of today.
pub(super) fn differences(there: &Connection, here: &Connection) -> Compared<Differences> {
    let mut found = Differences::default();
    let both = [
        places(there).map_err(Unread::There)?,
        places(here).map_err(Unread::Here)?,
    ];
    let all: BTreeSet<_> = both.iter().flat_map(BTreeMap::keys).collect();
    for place in all {
        for (what, number, sql) in KINDS {
            let mut left = there.prepare_cached(sql).map_err(Unread::There)?;
            let mut right = here.prepare_cached(sql).map_err(Unread::Here)?;
            let left = rows(&mut left, both[0].get(place)).map_err(Unread::There)?;
            let right = rows(&mut right, both[1].get(place)).map_err(Unread::Here)?;
            walk(left, right, |key, there, here| {
                let (organization, project, environment) = place;
                let states = states(number, there, here);
                found.push(|| {
                    format!("{what} {key} in {project}/{environment} of organization {organization}: {states}")
                });
            })?;
        }
    }
    Ok(found)
}

/// Of a place that this side has, or of none.
fn rows<'s>(statement: &'s mut Statement<'_>, ids: Option<&Ids>) -> rusqlite::Result<Cursor<'s>> {
    Cursor::new(ids.map(|ids| statement.query((&ids.0, &ids.1))).transpose()?)
}

fn places(connection: &Connection) -> rusqlite::Result<BTreeMap<Place, Ids>> {
    let mut statement = connection.prepare(PLACES)?;
    let places = statement.query_map([], |row| {
        Ok(((row.get(0)?, row.get(1)?, row.get(2)?), (row.get(3)?, row.get(4)?)))
    })?;
    places.collect()
}

/// Both are in the order of their keys, byte by byte.
fn walk(
    mut there: Cursor<'_>,
    mut here: Cursor<'_>,
    mut see: impl FnMut(&str, Option<&State>, Option<&State>),
) -> Compared<()> {
    loop {
        let order = match (&there.next, &here.next) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let left = order.is_le().then(|| there.take()).transpose();
        let left = left.map_err(Unread::There)?.flatten();
        let right = order.is_ge().then(|| here.take()).transpose();
        let right = right.map_err(Unread::Here)?.flatten();
        let (one, other) = (
            left.as_ref().map(|(_, state)| state),
            right.as_ref().map(|(_, state)| state),
        );
        if one != other {
            let key = left.as_ref().or(right.as_ref()).map_or("", |(key, _)| key);
            see(key, one, other);
        }
    }
}

fn states(number: &str, there: Option<&State>, here: Option<&State>) -> String {
    match (there, here) {
        (Some(there), Some(here)) if there.to_string() != here.to_string() => {
            format!("{number} {there} there, {here} here")
        }
        (Some(there), Some(here)) if there.id == here.id => {
            format!("{number} {there} on both sides, which begin or end at other times")
        }
        (Some(there), Some(_)) => format!("{number} {there} on both sides, and not the same one"),
        (Some(there), None) => format!("{number} {there} there, none here"),
        (None, Some(here)) => format!("none there, {number} {here} here"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::open::migrated;
    use super::*;

    #[test]
    fn nothing_is_sorted_and_no_table_is_read_in_full_for_an_environment() {
        let connection = migrated();
        for (what, _, sql) in KINDS {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps = plan.query_map([vec![0; 16], vec![0; 16]], |row| row.get::<_, String>(3));
            let steps: Vec<_> = steps.unwrap().collect::<rusqlite::Result<_>>().unwrap();
            let is_step = |step: &String| !step.contains("TEMP B-TREE") && !step.starts_with("SCAN");
            assert!(!steps.is_empty() && steps.iter().all(is_step), "{what}: {steps:#?}");
        }
    }

    #[test]
    fn beyond_so_many_lines_they_are_counted() {
        let (mut there, here) = (migrated(), migrated());
        let tx = there.transaction().unwrap();
        tx.execute_batch(
            "INSERT INTO organizations (id, name, created_at, updated_at) VALUES (zeroblob(16), 'default', 1, 1);
             INSERT INTO projects (id, organization_id, slug, display_name, labels, created_at, updated_at)
                VALUES (zeroblob(16), zeroblob(16), 'shop', 'Shop', '{}', 1, 1);
             INSERT INTO environments (id, project_id, slug, display_name, labels, created_at, updated_at)
                VALUES (zeroblob(16), zeroblob(16), 'prod', 'Prod', '{}', 1, 1);",
        )
        .unwrap();
        let insert = "INSERT INTO configurations (id, environment_id, key, revision, revision_id, created_at, updated_at, sealed)
            VALUES (randomblob(16), zeroblob(16), ?1, 1, zeroblob(16), 1, 1, zeroblob(40))";
        for n in 0..Differences::MOST + 7 {
            tx.execute(insert, [format!("KEY_{n:05}")]).unwrap();
        }
        tx.commit().unwrap();
        let found = differences(&there, &here).unwrap();
        assert_eq!((found.lines.len(), found.more), (Differences::MOST, 7));
        let first = "configuration KEY_00000 in shop/prod of organization default: revision 1 there, none here";
        assert_eq!(found.lines[0], first);
    }
}

use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, Row};
use sealpod_core::Time;

use super::super::{AclRule, BundleQuery, Location, Result, Selection, Snapshot, SnapshotVersion, version};
use super::reader::View;
use super::row::{At, integer, number, optional_time, time};
use super::values::{ACTIVE, VISIBLE};
use super::{acl, configurations, environments, secrets};
use crate::ids::{ProjectId, SecretId};

pub(in super::super) fn snapshot(
    view: &View<'_>,
    query: &BundleQuery,
    permits: &dyn Fn(&Location, &[AclRule], &str) -> bool,
) -> Result<Snapshot> {
    let conn = view.conn;
    let location = environments::locate(conn, &query.environment)?;
    let rules = match query.subject {
        Some(subject) => acl::of_subject(conn, location.organization, subject)?,
        None => Vec::new(),
    };
    // The rules go first: the patterns are the caller's, and may be costly.
    let permitted = |name: &str| permits(&location, &rules, name);
    let none = BTreeMap::new();
    let (chosen, pinned) = match &query.selection {
        Selection::All => (matching(view, location.project, permitted)?, &none),
        Selection::Named { keys, patterns, pinned } => {
            let matched = |name: &str| permitted(name) && patterns.iter().any(|pattern| pattern.matches(name));
            let mut chosen = if patterns.is_empty() {
                BTreeMap::new()
            } else {
                matching(view, location.project, matched)?
            };
            for key in keys.iter().chain(pinned.keys()).filter(|key| permitted(key)) {
                chosen.extend(secrets::by_name(conn, location.project, key)?.map(|secret| (secret.name, secret.id)));
            }
            (chosen, pinned)
        }
    };
    let reading = Reading {
        view,
        location: &location,
        pending: pending(view, &location)?,
        values: query.values,
    };
    let mut found = Vec::new();
    let mut next_change_at = None;
    for (name, id) in chosen {
        view.go_on()?;
        let (version, change) = match pinned.get(&name) {
            Some(number) => reading.pinned(id, name, *number)?,
            None => reading.active(id, name)?,
        };
        found.extend(version);
        next_change_at = [next_change_at, change].into_iter().flatten().min();
    }
    let configurations = if query.configurations {
        configurations::of_environment(conn, &location)?
    } else {
        Vec::new()
    };
    Ok(Snapshot {
        taken_at: view.now,
        rules,
        secrets: found,
        configurations,
        next_change_at,
        location,
    })
}

/// The live secrets of a project whose names are `wanted`, by name.
fn matching(view: &View<'_>, project: ProjectId, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, SecretId>> {
    let mut statement = view
        .conn
        .prepare_cached("SELECT name, id FROM secrets WHERE project_id = ?1 AND deleted_at IS NULL")?;
    let mut rows = statement.query([project])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        view.go_on()?;
        let name: String = row.get(0)?;
        if wanted(&name) {
            found.insert(name, row.get(1)?);
        }
    }
    Ok(found)
}

/// Versions of the environment that will become active by themselves: number and instant, by secret.
fn pending(view: &View<'_>, location: &Location) -> Result<HashMap<SecretId, Vec<(u64, Time)>>> {
    let mut statement = view.conn.prepare_cached(&format!(
        "SELECT v.secret_id, v.number, v.not_before FROM versions v
         WHERE v.environment_id = ?1 AND v.not_before > ?2 AND v.is_enabled = 1 AND {VISIBLE}"
    ))?;
    let rows = statement.query_map((location.environment, At(view.now)), |row| {
        Ok((row.get::<_, SecretId>(0)?, number(row, 1)?, time(row, 2)?))
    })?;
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        let (secret, number, from) = row?;
        found.entry(secret).or_default().push((number, from));
    }
    Ok(found)
}

struct Reading<'a> {
    view: &'a View<'a>,
    location: &'a Location,
    pending: HashMap<SecretId, Vec<(u64, Time)>>,
    values: bool,
}

/// A version, if one may be read now, and when time alone changes that.
type Found = (Option<SnapshotVersion>, Option<Time>);

impl Reading<'_> {
    /// What [`version::active`] and [`version::next_change`] say: the active version changes when it ends, or when one
    /// of a higher number begins, whichever is sooner.
    fn active(&self, secret: SecretId, name: String) -> Result<Found> {
        let mut statement = self.view.conn.prepare_cached(&format!(
            "SELECT v.id, v.number, v.not_before, v.expires_at, {} FROM versions v
             WHERE v.secret_id = ?2 AND v.environment_id = ?3 AND {ACTIVE} ORDER BY v.number DESC LIMIT 1",
            self.value_column()
        ))?;
        let found = statement
            .query_row((At(self.view.now), secret, self.location.environment), |row| {
                from_row(row, secret, name)
            })
            .optional()?;
        let number = found.as_ref().map_or(0, |version| version.number);
        let begins = self.pending.get(&secret).into_iter().flatten();
        let begins = begins.filter(|(other, _)| *other > number).map(|(_, from)| *from).min();
        let ends = found.as_ref().and_then(end);
        Ok((found, [begins, ends].into_iter().flatten().min()))
    }

    /// A pinned version is there while it may itself be read.
    fn pinned(&self, secret: SecretId, name: String, number: u64) -> Result<Found> {
        let mut statement = self.view.conn.prepare_cached(&format!(
            "SELECT v.id, v.number, v.not_before, v.expires_at, {} FROM versions v
             WHERE v.secret_id = ?2 AND v.environment_id = ?3 AND v.number = ?4 AND {ACTIVE}",
            self.value_column()
        ))?;
        let params = (At(self.view.now), secret, self.location.environment, integer(number));
        let found = statement
            .query_row(params, |row| from_row(row, secret, name))
            .optional()?;
        let begins = self.pending.get(&secret).into_iter().flatten();
        let begins = begins
            .filter(|(other, _)| *other == number)
            .map(|(_, from)| *from)
            .min();
        let change = found.as_ref().map_or(begins, end);
        Ok((found, change))
    }

    fn value_column(&self) -> &'static str {
        if self.values { "v.sealed" } else { "NULL" }
    }
}

fn end(version: &SnapshotVersion) -> Option<Time> {
    version.expires_at.and_then(version::just_after)
}

fn from_row(row: &Row<'_>, secret: SecretId, name: String) -> rusqlite::Result<SnapshotVersion> {
    Ok(SnapshotVersion {
        secret,
        name,
        id: row.get(0)?,
        number: number(row, 1)?,
        not_before: optional_time(row, 2)?,
        expires_at: optional_time(row, 3)?,
        sealed: row.get(4)?,
    })
}

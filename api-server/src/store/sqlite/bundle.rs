use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, Row};
use sealpod_core::Time;

use super::super::bundle::{Asker, Bundled, Credential, Judge};
use super::super::{
    AclRule, BundleQuery, EnvironmentRef, KeyHolder, Location, Object, OrganizationRef, ProjectRef, Result, Selection,
    Snapshot, SnapshotVersion, StoreError, Subject, version,
};
use super::reader::View;
use super::row::{At, integer, number, optional_time, time};
use super::values::{ACTIVE, VISIBLE};
use super::{acl, configurations, environments, keys, members, organizations, people, secrets};
use crate::crypto::Sealed;
use crate::ids::{ProjectId, SecretId};

/// What a name is counted as beside its length.
const OVERHEAD: usize = 64;

pub(in super::super) fn read<J: Judge>(
    view: &View<'_>,
    query: &BundleQuery,
    subject: Option<Subject>,
    judge: J,
) -> Result<Bundled<J>> {
    let location = environments::locate(view.conn, &query.environment)?;
    let rules = match subject {
        Some(subject) => acl::of_subject(view.conn, location.organization, subject)?,
        None => Vec::new(),
    };
    snapshot(view, query, (location, rules), judge)
}

pub(in super::super) fn again<J: Judge>(
    view: &View<'_>,
    clock: Time,
    query: &BundleQuery,
    credential: Credential,
    admit: impl FnOnce(Asker) -> Option<J>,
) -> Result<Option<Bundled<J>>> {
    let Some(asker) = asker(view, clock, &query.environment, credential)? else {
        return Ok(None);
    };
    let judge = admit(asker).ok_or(StoreError::NotFound(Object::Organization))?;
    let location = environments::locate(view.conn, &query.environment)?;
    snapshot(view, query, (location, Vec::new()), judge).map(Some)
}

/// Whose the credential is, with what the owner is in the organization of the environment.
fn asker(view: &View<'_>, clock: Time, environment: &EnvironmentRef, credential: Credential) -> Result<Option<Asker>> {
    let conn = view.conn;
    let ProjectRef::Slug {
        organization: OrganizationRef::Name(organization),
        ..
    } = &environment.project
    else {
        return Err(StoreError::Internal("a bundle is asked for by names".into()));
    };
    match credential {
        Credential::Key(digest) => match keys::find(conn, &digest, clock)? {
            Some(KeyHolder::Account(key)) if key.organization.name == *organization => Ok(Some(Asker::Account(key))),
            Some(KeyHolder::Account(_)) => Err(StoreError::NotFound(Object::Organization)),
            Some(KeyHolder::Application(_)) | None => Ok(None),
        },
        Credential::Session(digest) => {
            let Some(session) = people::find_session(conn, &digest, clock)? else {
                return Ok(None);
            };
            let (organization, membership) = match members::membership(conn, session.user.id, organization) {
                Ok(found) => (found.organization, Some((found.role, found.rules))),
                Err(StoreError::NotFound(_)) => (organizations::by_name(conn, organization)?, None),
                Err(error) => return Err(error),
            };
            Ok(Some(Asker::User {
                session,
                organization,
                membership,
            }))
        }
        Credential::AdminKey => Ok(Some(Asker::AdminKey(organizations::by_name(conn, organization)?))),
    }
}

fn snapshot<J: Judge>(
    view: &View<'_>,
    query: &BundleQuery,
    (location, rules): (Location, Vec<AclRule>),
    mut judge: J,
) -> Result<Bundled<J>> {
    let none = BTreeMap::new();
    let pinned = match &query.selection {
        Selection::All => &none,
        Selection::Named { pinned, .. } => pinned,
    };
    let mut reading = Reading {
        view,
        location: &location,
        pending: pending(view, &location)?,
        values: judge.wants_values(),
        left: query.most,
    };
    let mut found = Vec::new();
    let mut next_change_at = None;
    for (name, id) in chosen(view, &location, &query.selection, &|name: &str| {
        judge.permits(&location, &rules, name)
    })? {
        view.go_on()?;
        let (version, change) = match pinned.get(&name) {
            Some(number) => reading.pinned(id, name, *number)?,
            None => reading.active(id, name)?,
        };
        if let Some(version) = version {
            let weight = OVERHEAD + version.name.len() + version.sealed.as_ref().map_or(0, weight);
            if !reading.takes(weight) {
                return Ok(Bundled::TooMuch);
            }
            found.push(version);
        }
        next_change_at = [next_change_at, change].into_iter().flatten().min();
    }
    let mut entries = Vec::new();
    if query.configurations {
        entries = configurations::of_environment(view.conn, &location)?;
        let weight = entries
            .iter()
            .map(|entry| OVERHEAD + entry.key.len() + weight(&entry.sealed));
        if !reading.takes(weight.sum()) {
            return Ok(Bundled::TooMuch);
        }
    }
    let (had, mut left) = (reading.values, reading.left);
    let mut snapshot = Snapshot {
        taken_at: view.now,
        rules,
        secrets: found,
        configurations: entries,
        next_change_at,
        location,
    };
    if judge.wants_values_of(&snapshot) && !had {
        for version in &mut snapshot.secrets {
            view.go_on()?;
            let sealed = sealed(view, version)?;
            match left.checked_sub(weight(&sealed)) {
                Some(less) => left = less,
                None => return Ok(Bundled::TooMuch),
            }
            version.sealed = Some(sealed);
        }
    }
    Ok(Bundled::Read(Box::new((judge, snapshot))))
}

/// The secrets that are asked for and permitted, by name.
fn chosen(
    view: &View<'_>,
    location: &Location,
    selection: &Selection,
    permitted: &dyn Fn(&str) -> bool,
) -> Result<BTreeMap<String, SecretId>> {
    let (keys, patterns, pinned) = match selection {
        Selection::All => return matching(view, location.project, permitted),
        Selection::Named { keys, patterns, pinned } => (keys, patterns, pinned),
    };
    // The rules go first: the patterns are the caller's, and may be costly.
    let matched = |name: &str| permitted(name) && patterns.iter().any(|pattern| pattern.matches(name));
    let mut chosen = if patterns.is_empty() {
        BTreeMap::new()
    } else {
        matching(view, location.project, matched)?
    };
    for key in keys.iter().chain(pinned.keys()).filter(|key| permitted(key)) {
        chosen.extend(secrets::by_name(view.conn, location.project, key)?.map(|secret| (secret.name, secret.id)));
    }
    Ok(chosen)
}

fn weight(sealed: &Sealed) -> usize {
    sealed.as_bytes().len()
}

fn sealed(view: &View<'_>, version: &SnapshotVersion) -> Result<Sealed> {
    let mut statement = view.conn.prepare_cached("SELECT sealed FROM versions WHERE id = ?1")?;
    Ok(statement.query_row([version.id], |row| row.get(0))?)
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
    /// How many bytes more it may find.
    left: usize,
}

/// A version, if one may be read now, and when time alone changes that.
type Found = (Option<SnapshotVersion>, Option<Time>);

impl Reading<'_> {
    fn takes(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

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

//! Copies of the database file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use uuid::Uuid;

use super::super::backup::{Comparison, Facts};
use super::super::{OpenError, Result};
use super::open::{self, engine_error};
use super::row::{Id, number};
use super::tx::Tx;
use super::{files, log, rewrap};
use crate::audit::{By, Chain, Entry, Head, Kind, Metadata, Verb};
use crate::crypto::Keyring;

/// Everything that is worth counting; a database of an older schema has not all of these.
const TABLES: [&str; 16] = [
    "organizations",
    "projects",
    "environments",
    "secrets",
    "versions",
    "hidden_versions",
    "configurations",
    "service_accounts",
    "api_keys",
    "acl_rules",
    "users",
    "members",
    "sessions",
    "trash",
    "quotas",
    "audit_entries",
];

pub(in super::super) fn copy(from: &Path, into: &Path) -> Result<(), OpenError> {
    let connection = open::connect(from, open::READER_CACHE)?;
    open::inspect(&connection, from)?;
    // SQLite takes an empty file for none, so that nobody else could ever read this one.
    files::create(into)?;
    let into = into.to_string_lossy();
    let copied = connection.execute("VACUUM INTO ?1", [&*into]);
    copied
        .map(drop)
        .map_err(|error| engine_error(from, "cannot copy the database", error))
}

pub(in super::super) fn inspect(path: &Path, keyring: &Keyring) -> Result<Facts, OpenError> {
    let connection = open::connect_to_look(path)?;
    let schema = open::inspect(&connection, path)?;
    let damaged = |what: String| OpenError::Damaged {
        path: path.to_owned(),
        what,
    };
    let finding = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let finding = finding.map_err(|error| damaged(format!("it cannot be read ({error})")))?;
    if finding != "ok" {
        return Err(damaged(finding));
    }
    let server = open::read_keys(&connection, path, keyring)?;
    let epoch = server.map_or_else(Uuid::nil, |server| server.epoch);
    let keys = open::check_keys(&connection, path, schema, keyring)?;
    rewrap::open_newest(&connection, keyring).map_err(|error| damaged(error.to_string()))?;
    let read = || -> rusqlite::Result<_> { Ok((counts(&connection)?, heads(&connection)?)) };
    let (counts, heads) = read().map_err(|error| engine_error(path, "cannot read the database", error))?;
    Ok(Facts {
        schema,
        epoch,
        counts,
        heads,
        keys,
    })
}

fn counts(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for table in TABLES {
        let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        if connection.prepare(exists)?.exists([table])? {
            let rows = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| number(row, 0))?;
            counts.insert(table.to_owned(), rows);
        }
    }
    Ok(counts)
}

fn heads(connection: &Connection) -> rusqlite::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for chain in log::chains(connection)? {
        let end = "SELECT seq, hash FROM audit_entries WHERE chain = ?1 ORDER BY seq DESC LIMIT 1";
        heads.push(connection.query_row(end, [Id(chain.id())], |row| {
            Ok(Head {
                chain,
                seq: number(row, 0)?,
                hash: row.get(1)?,
            })
        })?);
    }
    Ok(heads)
}

/// What people should know of: a line that tells which, for each row.
const COMPARED: [&str; 4] = [
    "SELECT 'key ' || k.prefix || '… of ' || coalesce('service account ' || a.name, 'application ' || p.slug)
     FROM api_keys k LEFT JOIN service_accounts a ON a.id = k.account_id LEFT JOIN projects p ON p.id = k.project_id",
    "SELECT 'service account ' || a.name || ' of organization ' || o.name
     FROM service_accounts a JOIN organizations o ON o.id = a.organization_id WHERE a.deleted_at IS NULL",
    "SELECT 'rule ' || r.permission || ' on ' || r.project_pattern || ' ' || r.env_pattern || ' ' || r.key_pattern || ' for '
         || r.subject_type || ' ' || lower(hex(r.subject_id)) || ' in organization ' || o.name
     FROM acl_rules r JOIN organizations o ON o.id = r.organization_id WHERE r.deleted_at IS NULL",
    "SELECT 'member ' || u.email || ' (' || m.role || ') of organization ' || o.name
     FROM members m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.organization_id",
];

pub(in super::super) fn compare(backup: &Path, live: &Path) -> Result<Comparison, OpenError> {
    let lines = |path: &Path| -> Result<BTreeSet<String>, OpenError> {
        let connection = open::connect_to_look(path)?;
        open::inspect(&connection, path)?;
        let read = || -> rusqlite::Result<BTreeSet<String>> {
            let mut lines = BTreeSet::new();
            for sql in COMPARED {
                let mut statement = connection.prepare(sql)?;
                for line in statement.query_map([], |row| row.get(0))? {
                    lines.insert(line?);
                }
            }
            Ok(lines)
        };
        read().map_err(|error| engine_error(path, "cannot be compared", error))
    };
    let (backup, live) = (lines(backup)?, lines(live)?);
    Ok(Comparison {
        revives: backup.difference(&live).cloned().collect(),
        lacks: live.difference(&backup).cloned().collect(),
    })
}

pub(in super::super) fn finish_restore(tx: &Tx<'_>, backup: Uuid, keep_keys: bool, by: &By) -> Result<()> {
    let mut ended = vec!["sessions", "login_codes", "login_counters", "idempotency"];
    if !keep_keys {
        ended.push("api_keys");
    }
    let mut count = 0;
    for table in ended {
        count += tx.conn.execute(&format!("DELETE FROM {table}"), [])?;
    }
    tx.conn.execute(
        "UPDATE meta SET value = ?1 WHERE name = 'epoch'",
        [Uuid::now_v7().as_bytes().as_slice()],
    )?;
    let entry = Entry::new(Kind::Backup, Verb::Restore)
        .resource(backup, &format!("backup {backup}"))
        .metadata(Metadata {
            count: Some(count as u64),
            ..Metadata::default()
        });
    tx.audit(Chain::Instance, entry, by)
}

//! Rows that go for good. Each call is one transaction that does a bounded part and says whether there is more, because
//! a large project in one transaction would keep every other change waiting.
//!
//! What refers goes before what is referred to, and the row of the trash that says what is to go goes last, so that a
//! purge that was cut off is taken up where it stopped. The pages are wiped: `secure_delete` is on.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Params};
use sealpod_core::Time;
use sealpod_core::wire::trash::TrashKind;

use super::super::trash::Step;
use super::super::{Object, Purged, Result, StoreError, Topic, Trashed};
use super::row::{At, Id, number};
use super::trash;
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Verb};
use crate::ids::{AccountId, EnvironmentId, OrganizationId, ProjectId, SecretId, TrashId};

/// Most rows, bytes of values, and time of one transaction.
const MAX_ROWS: u64 = 1_000;
const MAX_BYTES: u64 = 1024 * 1024;
const MAX_TIME: Duration = Duration::from_millis(5);
/// Rows without a value that one statement takes.
const AT_ONCE: u64 = 64;
/// Pages that one transaction gives back, and how many empty ones may stay for what is written next.
const SHRINK_PAGES: u64 = 64;

/// Nobody will see it in the trash again, and it is on record that it goes.
pub(in super::super) fn begin(tx: &Tx<'_>, id: TrashId, by: &By) -> Result<()> {
    let item = trash::by_id(tx.conn, id)?.ok_or(StoreError::NotFound(Object::TrashItem))?;
    mark(tx, &item, by)?;
    // If whoever asked goes away, somebody else finishes it.
    tx.publish(Topic::Trash);
    Ok(())
}

fn mark(tx: &Tx<'_>, item: &Trashed, by: &By) -> Result<()> {
    tx.conn
        .prepare_cached("UPDATE trash SET purging = 1 WHERE id = ?1")?
        .execute([item.id])?;
    trash::record(tx, item, (Verb::Delete, true), by)
}

/// Goes on with a purge that has begun.
pub(in super::super) fn item(tx: &Tx<'_>, id: TrashId) -> Result<Step> {
    tx.gives_back();
    let mut purge = Purge::new(tx);
    let more = !purge.item(id)?;
    Ok(Step {
        purged: purge.done,
        more,
    })
}

/// Goes on with whatever has begun, and then with what was deleted before `cutoff`.
pub(in super::super) fn due(tx: &Tx<'_>, cutoff: Time, by: &By) -> Result<Step> {
    tx.gives_back();
    let mut purge = Purge::new(tx);
    let more = !purge.due(cutoff, by)?;
    Ok(Step {
        purged: purge.done,
        more,
    })
}

/// Gives a few empty pages at the end of the file back; answers how many, 0 where there is nothing worth it.
pub(in super::super) fn shrink(tx: &Tx<'_>) -> Result<u64> {
    tx.gives_back();
    let free = |conn: &Connection| -> Result<u64> {
        Ok(conn
            .prepare_cached("PRAGMA freelist_count")?
            .query_row([], |row| number(row, 0))?)
    };
    let before = free(tx.conn)?;
    if before <= SHRINK_PAGES {
        return Ok(0);
    }
    let sql = format!("PRAGMA incremental_vacuum({SHRINK_PAGES})");
    let mut statement = tx.conn.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    // Each step gives one page back.
    while rows.next()?.is_some() {}
    drop(rows);
    Ok(before.saturating_sub(free(tx.conn)?))
}

/// One transaction's part. Its methods answer whether they finished.
struct Purge<'a> {
    tx: &'a Tx<'a>,
    until: Instant,
    bytes: u64,
    done: Purged,
}

impl<'a> Purge<'a> {
    fn new(tx: &'a Tx<'a>) -> Self {
        Self {
            tx,
            until: Instant::now() + MAX_TIME,
            bytes: 0,
            done: Purged::default(),
        }
    }

    fn may_go_on(&self) -> bool {
        self.done.rows < MAX_ROWS && self.bytes < MAX_BYTES && Instant::now() < self.until
    }

    fn due(&mut self, cutoff: Time, by: &By) -> Result<bool> {
        let tx = self.tx;
        while self.may_go_on() {
            if let Some(id) = first(tx, "SELECT id FROM trash WHERE purging = 1 LIMIT 1", ())? {
                if !self.item(TrashId(id))? {
                    return Ok(false);
                }
                self.done.items += 1;
                continue;
            }
            let next = "SELECT id FROM trash WHERE purging = 0 AND deleted_at <= ?1 ORDER BY deleted_at LIMIT 1";
            if let Some(id) = first(tx, next, [At(cutoff)])? {
                match trash::by_id(tx.conn, TrashId(id))? {
                    Some(item) => mark(tx, &item, by)?,
                    // Its project is gone, and so is it.
                    None => self.row("trash", id)?,
                }
                continue;
            }
            let next = "SELECT id FROM organizations WHERE deleted_at <= ?1 LIMIT 1";
            if let Some(id) = first(tx, next, [At(cutoff)])? {
                if !self.organization(OrganizationId(id), by)? {
                    return Ok(false);
                }
                self.done.organizations += 1;
                continue;
            }
            let next = "SELECT id FROM service_accounts WHERE deleted_at <= ?1 LIMIT 1";
            if let Some(id) = first(tx, next, [At(cutoff)])? {
                if !self.account(AccountId(id))? {
                    return Ok(false);
                }
                continue;
            }
            return self.rows("acl_rules", "deleted_at <= ?1", [At(cutoff)]);
        }
        Ok(false)
    }

    fn item(&mut self, id: TrashId) -> Result<bool> {
        let mut statement = self.tx.conn.prepare_cached(
            "SELECT kind, project_id, environment_id, secret_id, configuration_id FROM trash
             WHERE id = ?1 AND purging = 1",
        )?;
        let found = statement
            .query_row([id], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, ProjectId>(1)?,
                    row.get::<_, Option<EnvironmentId>>(2)?,
                    row.get::<_, Option<SecretId>>(3)?,
                    row.get::<_, Option<Id>>(4)?,
                ))
            })
            .optional()?;
        let Some((kind, project, environment, secret, configuration)) = found else {
            return Ok(true);
        };
        let finished = match (environment, secret, configuration) {
            (_, _, Some(configuration)) => {
                self.sealed("configurations", "configurations v WHERE v.id = ?1", [configuration])?
            }
            (Some(environment), Some(secret), None) => self.versions(id, secret, environment)?,
            (None, Some(secret), None) => self.secret(id, secret)?,
            (Some(environment), None, None) => self.environment(id, environment)?,
            (None, None, None) if kind == TrashKind::Project.as_str() => self.project(id, project)?,
            (None, None, None) => return Err(StoreError::Internal("a row of the trash names nothing".into())),
        };
        if finished {
            self.row("trash", id.0)?;
        }
        Ok(finished)
    }

    /// Versions of one deletion. Its ranges stay where numbering needs them, and say no more than that.
    fn versions(&mut self, id: TrashId, secret: SecretId, environment: EnvironmentId) -> Result<bool> {
        let hidden = "hidden_versions h JOIN versions v ON v.secret_id = h.secret_id
             AND v.environment_id = h.environment_id AND v.number BETWEEN h.from_number AND h.to_number
             WHERE h.trash_id = ?1";
        if !self.sealed("versions", hidden, [id])? {
            return Ok(false);
        }
        self.tx
            .conn
            .prepare_cached("UPDATE hidden_versions SET trash_id = NULL WHERE trash_id = ?1")?
            .execute([id])?;
        // Only the highest number that was ever given out has to be known.
        let outnumbered = "secret_id = ?1 AND environment_id = ?2 AND trash_id IS NULL AND to_number < max(
             (SELECT coalesce(max(v.number), 0) FROM versions v WHERE v.secret_id = ?1 AND v.environment_id = ?2),
             (SELECT max(h.to_number) FROM hidden_versions h WHERE h.secret_id = ?1 AND h.environment_id = ?2))";
        self.rows("hidden_versions", outnumbered, (secret, environment))
    }

    fn secret(&mut self, item: TrashId, id: SecretId) -> Result<bool> {
        Ok(self.sealed("versions", "versions v WHERE v.secret_id = ?1", [id])?
            && self.rows("hidden_versions", "secret_id = ?1", [id])?
            && self.rows("trash", "secret_id = ?1 AND id <> ?2", (id, item))?
            && self.last_row("secrets", id.0)?)
    }

    fn environment(&mut self, item: TrashId, id: EnvironmentId) -> Result<bool> {
        Ok(self.sealed("versions", "versions v WHERE v.environment_id = ?1", [id])?
            && self.rows("hidden_versions", "environment_id = ?1", [id])?
            && self.sealed("configurations", "configurations v WHERE v.environment_id = ?1", [id])?
            && self.rows("trash", "environment_id = ?1 AND id <> ?2", (id, item))?
            && self.last_row("environments", id.0)?)
    }

    fn project(&mut self, item: TrashId, id: ProjectId) -> Result<bool> {
        let tx = self.tx;
        while let Some(secret) = first(tx, "SELECT id FROM secrets WHERE project_id = ?1 LIMIT 1", [id])? {
            if !self.secret(item, SecretId(secret))? {
                return Ok(false);
            }
        }
        while let Some(environment) = first(tx, "SELECT id FROM environments WHERE project_id = ?1 LIMIT 1", [id])? {
            if !self.environment(item, EnvironmentId(environment))? {
                return Ok(false);
            }
        }
        // An account of this project alone has nothing left to reach; without its scope it would reach everything.
        while let Some(account) = first(
            tx,
            "SELECT id FROM service_accounts WHERE project_id = ?1 LIMIT 1",
            [id],
        )? {
            if !self.account(AccountId(account))? {
                return Ok(false);
            }
        }
        Ok(self.rows("api_keys", "project_id = ?1", [id])?
            && self.rows("trash", "project_id = ?1 AND id <> ?2", (id, item))?
            && self.last_row("projects", id.0)?)
    }

    fn account(&mut self, id: AccountId) -> Result<bool> {
        if !(self.rows("acl_rules", "subject_id = ?1 AND deleted_at IS NULL", [id])?
            && self.rows("api_keys", "account_id = ?1", [id])?)
        {
            return Ok(false);
        }
        let live = "SELECT organization_id, name FROM service_accounts WHERE id = ?1 AND deleted_at IS NULL";
        let live = self
            .tx
            .conn
            .prepare_cached(live)?
            .query_row([id], |row| {
                Ok((row.get::<_, OrganizationId>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        if let Some((organization, name)) = live {
            let entry = Entry::new(Kind::ServiceAccount, Verb::Delete)
                .resource(id.0, &name)
                .metadata(purged());
            self.tx
                .audit(Chain::Organization(organization), entry, &By::system("trash"))?;
            self.tx.publish(Topic::Subject(id.0));
        }
        self.last_row("service_accounts", id.0)
    }

    fn organization(&mut self, id: OrganizationId, by: &By) -> Result<bool> {
        let (tx, nothing) = (self.tx, TrashId(uuid::Uuid::nil()));
        while let Some(project) = first(tx, "SELECT id FROM projects WHERE organization_id = ?1 LIMIT 1", [id])? {
            if !self.project(nothing, ProjectId(project))? {
                return Ok(false);
            }
        }
        let account = "SELECT id FROM service_accounts WHERE organization_id = ?1 LIMIT 1";
        while let Some(account) = first(tx, account, [id])? {
            if !self.account(AccountId(account))? {
                return Ok(false);
            }
        }
        if !(self.rows("acl_rules", "organization_id = ?1", [id])?
            && self.rows("trash", "organization_id = ?1", [id])?)
        {
            return Ok(false);
        }
        self.done.rows += tx
            .conn
            .prepare_cached("DELETE FROM members WHERE organization_id = ?1")?
            .execute([id])? as u64;
        let name: String = tx
            .conn
            .prepare_cached("SELECT name FROM organizations WHERE id = ?1")?
            .query_row([id], |row| row.get(0))?;
        for chain in [Chain::Instance, Chain::Organization(id)] {
            let entry = Entry::new(Kind::Org, Verb::Delete)
                .resource(id.0, &name)
                .metadata(purged());
            tx.audit(chain, entry, by)?;
        }
        self.last_row("organizations", id.0)
    }

    /// Rows `v` of `table` that hold a value, one by one: each may be a MiB.
    fn sealed(&mut self, table: &str, from: &str, params: impl Params + Copy) -> Result<bool> {
        let conn = self.tx.conn;
        let mut find = conn.prepare_cached(&format!("SELECT v.rowid, length(v.sealed) FROM {from} LIMIT 1"))?;
        let mut delete = conn.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?;
        while self.may_go_on() {
            let found = find.query_row(params, |row| Ok((row.get::<_, i64>(0)?, number(row, 1)?)));
            let Some((row, bytes)) = found.optional()? else {
                return Ok(true);
            };
            delete.execute([row])?;
            self.done.rows += 1;
            self.bytes += bytes;
        }
        Ok(false)
    }

    /// Small rows, some at a time.
    fn rows(&mut self, table: &str, which: &str, params: impl Params + Copy) -> Result<bool> {
        let sql = format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {which} LIMIT {AT_ONCE})");
        let mut delete = self.tx.conn.prepare_cached(&sql)?;
        while self.may_go_on() {
            let deleted = delete.execute(params)? as u64;
            self.done.rows += deleted;
            if deleted < AT_ONCE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn row(&mut self, table: &str, id: uuid::Uuid) -> Result<()> {
        let sql = format!("DELETE FROM {table} WHERE id = ?1");
        self.done.rows += self.tx.conn.prepare_cached(&sql)?.execute([Id(id)])? as u64;
        Ok(())
    }

    /// The row that all the others were about.
    fn last_row(&mut self, table: &str, id: uuid::Uuid) -> Result<bool> {
        self.row(table, id).map(|()| true)
    }
}

fn purged() -> Metadata {
    Metadata {
        purged: true,
        ..Metadata::default()
    }
}

/// The id of the first row there is.
fn first(tx: &Tx<'_>, sql: &str, params: impl Params) -> Result<Option<uuid::Uuid>> {
    let mut statement = tx.conn.prepare_cached(sql)?;
    Ok(statement
        .query_row(params, |row| row.get::<_, Id>(0))
        .optional()?
        .map(|id| id.0))
}

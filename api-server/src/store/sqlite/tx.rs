//! What a change runs in: the open transaction, and the audit chains as it leaves them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, hash_map};

use rusqlite::Connection;
use sealpod_core::Time;

use super::super::watch::Change as Moved;
use super::super::{Result, StoreError, Topic};
use super::health::Health;
use super::log::runs::Runs;
use super::row::run as execute;
use super::{idempotency, log};
use crate::audit::{AuditKey, By, Chain, Entry, Head};
use crate::ids::SecretId;

/// The audit chains, as the open transaction leaves them.
pub(super) struct Chains {
    /// Of those that were appended to last. Whatever is rolled back makes them unknown again.
    ends: RefCell<HashMap<Chain, log::End>>,
    pub(super) runs: Runs,
}

/// Most chains whose ends are remembered; 80 bytes each.
const MAX_ENDS: usize = 4_096;

impl Chains {
    pub(super) fn open(conn: &Connection) -> Result<Self> {
        Ok(Self {
            ends: RefCell::default(),
            runs: Runs::open(conn)?,
        })
    }

    fn append(&self, conn: &Connection, key: &AuditKey, now: Time, what: (Chain, Entry, &By)) -> Result<Head> {
        let (chain, entry, by) = what;
        let mut ends = self.ends.borrow_mut();
        if ends.len() >= MAX_ENDS && !ends.contains_key(&chain) {
            ends.clear();
        }
        let end = match ends.entry(chain) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(unknown) => unknown.insert(log::end(conn, chain)?),
        };
        let head = log::append(conn, key, now, (chain, end), entry, by)?;
        self.runs.appended(chain, head.seq);
        Ok(head)
    }

    /// Something was rolled back.
    pub(super) fn forget(&self) {
        self.ends.borrow_mut().clear();
    }
}

/// A transaction that a change runs in.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) now: Time,
    key: &'a AuditKey,
    chains: &'a Chains,
    topics: RefCell<Vec<Moved>>,
    heads: RefCell<Vec<Head>>,
    secrets: RefCell<Vec<SecretId>>,
    /// Whether all that it does may draw on the reserve; unknown as long as nothing has said so.
    light: Cell<Option<bool>>,
    /// How many rows had changed when it began.
    before: u64,
    health: &'a Health,
}

/// What the jobs of a transaction leave behind for its end.
#[derive(Default)]
pub(super) struct Traces {
    pub(super) topics: Vec<Moved>,
    /// New ends of chains, in their order.
    pub(super) heads: Vec<Head>,
    /// What it touched.
    pub(super) secrets: Vec<SecretId>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(conn: &'a Connection, key: &'a AuditKey, chains: &'a Chains, health: &'a Health) -> Self {
        Self {
            conn,
            now: Time::now(),
            key,
            chains,
            topics: RefCell::default(),
            heads: RefCell::default(),
            secrets: RefCell::default(),
            light: Cell::default(),
            before: conn.total_changes(),
            health,
        }
    }

    pub(super) fn finish(self) -> Traces {
        Traces {
            topics: self.topics.into_inner(),
            heads: self.heads.into_inner(),
            secrets: self.secrets.into_inner(),
        }
    }

    /// Appends to a chain, in this transaction; with a change, notes that its request was done.
    pub(crate) fn audit(&self, chain: Chain, entry: Entry, by: &By) -> Result<()> {
        self.weigh(!entry.is_change() || entry.takes_away());
        if entry.is_change() {
            if let Some(claim) = &by.once {
                idempotency::claim(self, claim, entry.resource_id)?;
            }
            if let Chain::Organization(id) = chain {
                self.publish(Topic::Changes(id));
            }
        }
        let head = self.append(chain, entry, by)?;
        self.heads.borrow_mut().push(head);
        Ok(())
    }

    /// What this does gives room back, or will.
    pub(crate) fn gives_back(&self) {
        self.weigh(true);
    }

    fn weigh(&self, light: bool) {
        self.light.set(Some(light && self.light.get().unwrap_or(true)));
    }

    /// An error where the disk is full, and this is more than the reserve is for.
    pub(super) fn afford(&self) -> Result<()> {
        let takes_room = || self.light.get() != Some(true) && self.conn.total_changes() != self.before;
        if self.health.reserve.is_given_up() && takes_room() {
            return Err(StoreError::DiskFull);
        }
        Ok(())
    }

    /// As [`Tx::audit`], where the entry may yet be taken back.
    pub(super) fn append(&self, chain: Chain, entry: Entry, by: &By) -> Result<Head> {
        let appended = self.chains.append(self.conn, self.key, self.now, (chain, entry, by));
        self.health.note_audit(&appended);
        appended
    }

    /// Takes back what was done since a savepoint; `sql` names it.
    pub(super) fn roll_back_to(&self, sql: &str) -> Result<()> {
        self.chains.forget();
        Ok(execute(self.conn, sql)?)
    }

    /// The versions of this secret change. A use case that runs by [`Engine::write_values`](super::Engine) says so of each.
    pub(crate) fn touch(&self, secret: SecretId) {
        self.secrets.borrow_mut().push(secret);
    }

    /// Wakes who watches this, once it is committed.
    pub(crate) fn publish(&self, change: impl Into<Moved>) {
        self.topics.borrow_mut().push(change.into());
    }
}

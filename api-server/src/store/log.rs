//! The audit log as it is kept.

use sealpod_core::Time;
use uuid::Uuid;

use super::{By, Result, Store, sqlite};
use crate::audit::{Broken, Chain, Entry, GENESIS, Head, Kind, StoredEntry, Verb};

/// Which entries of a chain are asked for, newest first. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    pub action: Option<(Kind, Verb)>,
    pub actor_id: Option<Uuid>,
    pub resource_type: Option<Kind>,
    pub resource_id: Option<Uuid>,
    /// The earliest and the latest time of an entry, both included.
    pub since: Option<Time>,
    pub until: Option<Time>,
    /// Only entries with a smaller `seq`.
    pub before: Option<u64>,
    /// Most entries of the page.
    pub limit: usize,
}

/// Some of the entries that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Newest first. They can be fewer than the limit although others follow, for one page looks at only so many.
    pub entries: Vec<StoredEntry>,
    /// The `before` of the page that follows, if one can.
    pub next: Option<u64>,
}

/// What a walk along every chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    pub chains: Vec<ChainReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    pub chain: Chain,
    /// The entries up to this one were exported, and are not looked at; 0: none was.
    pub cut: u64,
    /// The hash of that one.
    pub cut_head: [u8; 32],
    /// How many entries were good behind it.
    pub entries: u64,
    /// The hash of the last good one.
    pub head: [u8; 32],
    /// What stands behind them, if it is not as it was written.
    pub broken: Option<Broken>,
}

impl ChainReport {
    /// Of a chain of which nothing was looked at yet.
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            chain,
            cut: 0,
            cut_head: GENESIS,
            entries: 0,
            head: GENESIS,
            broken: None,
        }
    }
}

impl AuditReport {
    pub fn is_intact(&self) -> bool {
        self.chains.iter().all(|chain| chain.broken.is_none())
    }
}

impl Store {
    /// Returns once the entry is on disk: call it before a value is given out.
    pub async fn record(&self, chain: Chain, entry: Entry, by: By) -> Result<()> {
        self.engine.record(chain, entry, by).await
    }

    /// Walks every chain from its first entry.
    pub async fn verify_audit(&self) -> Result<AuditReport> {
        let key = self.engine.audit_key().clone();
        self.engine.read(move |view| sqlite::log::verify(view.conn, &key)).await
    }

    /// A page of a chain. What pages show does not depend on what is added meanwhile.
    pub async fn audit_page(&self, chain: Chain, query: AuditQuery) -> Result<AuditPage> {
        self.engine
            .read(move |view| sqlite::log::page(view, chain, &query))
            .await
    }

    /// The newest entries of a chain, newest first.
    pub async fn audit_entries(&self, chain: Chain, limit: usize) -> Result<Vec<StoredEntry>> {
        let query = AuditQuery {
            limit,
            ..AuditQuery::default()
        };
        Ok(self.audit_page(chain, query).await?.entries)
    }

    /// The entries of a chain that follow the one numbered `after`, oldest first.
    pub async fn audit_following(&self, chain: Chain, after: u64, limit: u32) -> Result<Vec<StoredEntry>> {
        self.engine
            .read(move |view| sqlite::log::following(view, chain, after, limit))
            .await
    }

    /// The ends of the chains that have grown since this was last called, or since the store was opened.
    pub fn moved_audit_heads(&self) -> Vec<Head> {
        self.engine.moved_audit_heads()
    }
}

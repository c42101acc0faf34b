//! The audit log as it is kept.

use super::{By, Result, Store, sqlite};
use crate::audit::{Broken, Chain, Entry, StoredEntry};

/// What a walk along every chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    pub chains: Vec<ChainReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    pub chain: Chain,
    /// How many entries were good, from the first on.
    pub entries: u64,
    /// The hash of the last good one.
    pub head: [u8; 32],
    /// What stands behind them, if it is not as it was written.
    pub broken: Option<Broken>,
}

impl AuditReport {
    pub fn is_intact(&self) -> bool {
        self.chains.iter().all(|chain| chain.broken.is_none())
    }
}

impl Store {
    /// Returns once the entry is on disk: call it before a value is given out.
    pub async fn record(&self, chain: Chain, entry: Entry, by: By) -> Result<()> {
        self.engine.write(move |tx| tx.audit(chain, entry, &by)).await
    }

    /// Walks every chain from its first entry.
    pub async fn verify_audit(&self) -> Result<AuditReport> {
        let key = self.engine.audit_key().clone();
        self.engine.read(move |view| sqlite::log::verify(view.conn, &key)).await
    }

    /// The newest entries of a chain, newest first.
    pub async fn audit_entries(&self, chain: Chain, limit: u32) -> Result<Vec<StoredEntry>> {
        self.engine
            .read(move |view| sqlite::log::newest(view.conn, chain, limit))
            .await
    }
}

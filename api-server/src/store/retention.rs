//! Old entries of the audit log: which are to be exported, and taking away what was.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

pub use super::sqlite::log::cut::Ages;
use super::{By, Result, Store, sqlite};
use crate::audit::{AuditKey, Chain, Segment};

/// Between two transactions, so that this takes a share of the writer and not all of it.
const PAUSE: Duration = Duration::from_millis(5);

/// Most entries of a chain that are exported at a time: half a second of reading, and some megabytes of an archive.
pub const MAX_SEGMENT: u64 = 50_000;

/// Rows that went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    pub entries: u64,
    /// Of the lists by which entries are found.
    pub lists: u64,
    /// Whether there is more, of one transaction.
    pub(super) more: bool,
}

impl Dropped {
    pub(super) fn rows(&self) -> u64 {
        self.entries + self.lists
    }
}

impl Store {
    /// What every chain but those `except` has that is old enough; nothing while nothing has waited for long, so that what comes of
    /// age bit by bit is exported once in a while. A chain's newest entry stays.
    pub async fn audit_due(&self, ages: Ages, except: &BTreeSet<Chain>) -> Result<Vec<Segment>> {
        let mut chains = self.engine.read(|view| Ok(sqlite::log::chains(view.conn)?)).await?;
        chains.retain(|chain| !except.contains(chain));
        let mut is_due = false;
        for chain in chains.clone() {
            let look = self
                .engine
                .read(move |view| sqlite::log::cut::is_due(view, chain, ages));
            is_due = is_due || look.await?;
        }
        let mut due = Vec::new();
        for chain in chains.into_iter().filter(|_| is_due) {
            let segment = self.engine.read(move |view| sqlite::log::cut::due(view, chain, ages));
            due.extend(segment.await?);
        }
        Ok(due)
    }

    /// What proves that entries are those that were written.
    pub(crate) fn audit_key(&self) -> AuditKey {
        self.engine.audit_key().clone()
    }

    /// Puts on record that these were exported to this archive. From here on they may go, and chains are verified from behind
    /// them.
    pub async fn cut_audit(&self, segments: Vec<Segment>, export: Uuid, name: String, by: By) -> Result<()> {
        let key = self.audit_key();
        self.engine
            .write_values(move |tx| sqlite::log::cut::store(tx, &key, &segments, (export, &name), &by))
            .await
    }

    /// Whether it is on record that entries were exported to this archive.
    pub async fn has_cut(&self, export: Uuid) -> Result<bool> {
        self.engine
            .read(move |view| sqlite::log::cut::is_cut(view.conn, export))
            .await
    }

    /// Drops what was exported, in many small transactions; what is cut off here goes on at the next call.
    pub async fn drop_exported(&self) -> Result<Dropped> {
        let mut all = Dropped::default();
        let left = self.engine.read(|view| sqlite::log::cut::leftovers(view.conn)).await?;
        for chain in left {
            loop {
                let drop = self.engine.write_values(move |tx| {
                    tx.gives_back();
                    sqlite::log::cut::drop_some(tx.conn, chain)
                });
                let Dropped { entries, lists, more } = drop.await?;
                all.entries += entries;
                all.lists += lists;
                if !more {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(all)
    }
}

//! Requests that are done once.

use sealpod_core::Time;
use uuid::Uuid;

use super::{Result, Store, sqlite};
use crate::crypto::Sealed;
use crate::idempotency::Claim;

/// What is left of a request that was done a day ago at most, or an hour more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub fingerprint: [u8; 32],
    /// The id of what it made.
    pub resource: Option<Uuid>,
    /// Its answer, if that was kept.
    pub sealed: Option<Sealed>,
}

impl Store {
    /// What was done in this scope, if anything was. The note of it is written with the change: a change whose `By` has
    /// a claim is `Repeated` where another execution has claimed the scope.
    pub async fn done_before(&self, scope: [u8; 32]) -> Result<Option<Done>> {
        self.engine
            .read(move |view| sqlite::idempotency::find(view, &scope))
            .await
    }

    /// Keeps the answer of this very execution; one that changed nothing is noted by it. `Moved`: seal it again.
    pub async fn keep_answer(&self, claim: Claim, sealed: Sealed) -> Result<()> {
        self.engine
            .write_values(move |tx| sqlite::idempotency::keep(tx, &claim, &sealed))
            .await
    }

    /// Forgets up to `limit` requests that were done until then; answers how many there were. Until this, each counts as done.
    pub async fn forget_done(&self, until: Time, limit: u32) -> Result<usize> {
        self.engine
            .write_values(move |tx| sqlite::idempotency::forget(tx, until, limit))
            .await
    }
}

//! The ends of the audit chains that have grown, kept until somebody asks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::audit::Head;

#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<HashMap<Uuid, Head>>);

impl Heads {
    /// `heads` are on disk, those of one chain in their order.
    pub(super) fn note(&self, heads: &[Head]) {
        let mut noted = self.lock();
        noted.extend(heads.iter().map(|head| (head.chain.id(), *head)));
    }

    /// What was noted since the last call, by chain.
    pub(super) fn take(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = std::mem::take(&mut *self.lock()).into_values().collect();
        heads.sort_unstable_by_key(|head| head.chain);
        heads
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Head>> {
        // Nothing that runs under this lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

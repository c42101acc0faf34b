//! Stretches of a chain that were exported and may go.

use uuid::Uuid;

use super::{AuditKey, Chain};

/// Sets these apart from whatever else is hashed under the key of the log.
const FORMAT: &[u8] = b"sealpod/audit-cut/1";

/// From one entry of a chain to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub chain: Chain,
    pub first: u64,
    pub last: u64,
    /// The hash before the first entry.
    pub previous: [u8; 32],
    /// The hash of the last one.
    pub head: [u8; 32],
}

impl Segment {
    pub fn entries(&self) -> u64 {
        self.last + 1 - self.first
    }

    /// What proves, once the entries are gone, that this server exported them: to the archive of this id.
    pub(crate) fn mac(&self, key: &AuditKey, export: Uuid) -> [u8; 32] {
        let Self {
            chain,
            first,
            last,
            previous,
            head,
        } = self;
        let numbers = [first.to_be_bytes(), last.to_be_bytes()].concat();
        key.mac(
            FORMAT,
            &[chain.id().as_bytes(), &numbers, previous, head, export.as_bytes()],
        )
    }
}

//! Stretches of a chain that were exported and may go.

use std::cmp::Ordering;

use uuid::Uuid;

use super::{AuditKey, Broken, Chain, End};

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

    /// What its first entry follows.
    pub fn begin(&self) -> End {
        (self.first - 1, self.previous)
    }

    /// Whether a walk along its entries that came to `end` saw all of it.
    pub fn ends_at(&self, end: End) -> Result<(), Broken> {
        let (seq, _) = end;
        match seq.cmp(&self.last) {
            Ordering::Less => Err(Broken::Gone { seq: seq + 1 }),
            Ordering::Greater => Err(Broken::Beyond { seq: self.last + 1 }),
            Ordering::Equal if end == (self.last, self.head) => Ok(()),
            Ordering::Equal => Err(Broken::Changed { seq }),
        }
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

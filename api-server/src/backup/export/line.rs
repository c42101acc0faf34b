//! The form of an export: a line for each part of it.

use data_encoding::HEXLOWER;
use sealpod_core::Time;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::audit::{Chain, Segment, StoredEntry};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Segment { segment: SegmentLine },
    Entry(Box<EntryLine>),
}

impl Line {
    pub(super) fn segment(segment: &Segment) -> Self {
        Self::Segment {
            segment: SegmentLine {
                chain: segment.chain.id(),
                first: segment.first,
                last: segment.last,
                previous: HEXLOWER.encode(&segment.previous),
                head: HEXLOWER.encode(&segment.head),
            },
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentLine {
    /// The organization's id; nil for the instance's chain.
    chain: Uuid,
    first: u64,
    last: u64,
    previous: String,
    head: String,
}

impl SegmentLine {
    pub(super) fn parse(&self) -> Option<Segment> {
        let segment = Segment {
            chain: Chain::of_id(self.chain),
            first: self.first,
            last: self.last,
            previous: hash(&self.previous)?,
            head: hash(&self.head)?,
        };
        (segment.first > 0 && segment.last >= segment.first).then_some(segment)
    }
}

fn hash(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine {
    id: Uuid,
    seq: u64,
    created_at: Time,
    action: String,
    actor_type: String,
    actor_id: Option<Uuid>,
    actor_name: String,
    resource_type: String,
    resource_id: Option<Uuid>,
    resource_name: Option<String>,
    project: Option<String>,
    environment: Option<String>,
    outcome: String,
    ip: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    /// JSON as text, because the hash is over its bytes.
    metadata: String,
    hash: String,
}

impl From<StoredEntry> for EntryLine {
    fn from(entry: StoredEntry) -> Self {
        Self {
            id: entry.id,
            seq: entry.seq,
            created_at: entry.created_at,
            action: entry.action,
            actor_type: entry.actor_type,
            actor_id: entry.actor_id,
            actor_name: entry.actor_name,
            resource_type: entry.resource_type,
            resource_id: entry.resource_id,
            resource_name: entry.resource_name,
            project: entry.project,
            environment: entry.environment,
            outcome: entry.outcome,
            ip: entry.ip,
            user_agent: entry.user_agent,
            request_id: entry.request_id,
            metadata: entry.metadata,
            hash: HEXLOWER.encode(&entry.hash),
        }
    }
}

impl EntryLine {
    pub(super) fn of(self, chain: Chain) -> Option<StoredEntry> {
        Some(StoredEntry {
            chain,
            seq: self.seq,
            id: self.id,
            created_at: self.created_at,
            action: self.action,
            actor_type: self.actor_type,
            actor_id: self.actor_id,
            actor_name: self.actor_name,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            resource_name: self.resource_name,
            project: self.project,
            environment: self.environment,
            outcome: self.outcome,
            ip: self.ip,
            user_agent: self.user_agent,
            request_id: self.request_id,
            metadata: self.metadata,
            hash: hash(&self.hash)?,
        })
    }
}

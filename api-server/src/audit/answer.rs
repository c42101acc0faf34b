//! Entries as they are given out.

use sealpod_core::wire::audit::AuditEntry;

use super::StoredEntry;

impl From<StoredEntry> for AuditEntry {
    fn from(entry: StoredEntry) -> Self {
        Self {
            id: entry.id,
            seq: entry.seq,
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
            // What is no JSON any more is still shown, as the text that it is.
            metadata: serde_json::from_str(&entry.metadata).unwrap_or(serde_json::Value::String(entry.metadata)),
            created_at: entry.created_at,
            hash: data_encoding::HEXLOWER.encode(&entry.hash),
        }
    }
}

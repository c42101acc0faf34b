//! Bodies of the audit log (`/api/orgs/{org}/audit-logs`, `/api/audit-logs`): `snake_case`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;

#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// Media type of an export: an [`AuditEntry`] a line.
pub const JSON_LINES: &str = "application/x-ndjson";

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct AuditPage {
    /// Newest first. Fewer than `limit`, or none, do not mean that nothing follows: `next_cursor` tells.
    pub entries: Vec<AuditEntry>,
    /// `after` of the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// One thing that happened. It holds names, numbers and versions, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct AuditEntry {
    pub id: Uuid,
    /// 1, 2, 3 … without gaps: the order in which things happened, whatever the clock did.
    pub seq: u64,
    /// `<resource>.<verb>`
    pub action: String,
    /// `user`, `service_account`, `admin_key`, `application`, `system` or `anonymous`.
    pub actor_type: String,
    pub actor_id: Option<Uuid>,
    /// As it was called then.
    pub actor_name: String,
    pub resource_type: String,
    pub resource_id: Option<Uuid>,
    pub resource_name: Option<String>,
    /// Slug of the project that the resource is in.
    pub project: Option<String>,
    /// Slug of the environment that the resource is in.
    pub environment: Option<String>,
    /// `success`, `denied` or `failure`.
    pub outcome: String,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    /// What else the entry says: versions, keys, changed fields.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: serde_json::Value,
    pub created_at: Time,
    /// 64 hex digits: a keyed hash over this entry and the hash of the one before it.
    pub hash: String,
}

//! Errors of every plane: RFC 9457 problem documents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error answer. `code` is stable and is what programs decide by; `detail` is for people and may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    #[serde(default)]
    pub title: String,
    pub status: u16,
    #[serde(default)]
    pub detail: String,
    pub code: String,
    /// What is wrong with each field, for `validation_failed`; an item of an array is named `[2].expiresAt`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Vec<String>>,
    /// What the request made when it was sent the first time, for `already_created`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

/// The values of [`Problem::code`] that callers decide by.
pub mod codes {
    pub const VALIDATION_FAILED: &str = "validation_failed";
    pub const UNAUTHORIZED: &str = "unauthorized";
    pub const FORBIDDEN: &str = "forbidden";
    pub const NOT_FOUND: &str = "not_found";
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    pub const CONFLICT: &str = "conflict";
    /// 409: the organization that the management plane works in is neither renamed nor deleted.
    pub const DEFAULT_ORG: &str = "default_org";
    /// 409: an organization keeps at least one owner.
    pub const LAST_OWNER: &str = "last_owner";
    /// 409: an operator owns the object, and would make the change undone or lose sight of it.
    pub const MANAGED: &str = "managed";
    /// The organization holds as much as its quotas allow.
    pub const QUOTA_EXCEEDED: &str = "quota_exceeded";
    /// 409: another request was sent under this `Idempotency-Key`.
    pub const IDEMPOTENCY_MISMATCH: &str = "idempotency_mismatch";
    /// 409: the first request under this `Idempotency-Key` is not done yet; see `Retry-After`.
    pub const IDEMPOTENCY_IN_PROGRESS: &str = "idempotency_in_progress";
    /// 409: the request was done before, and its answer is not kept; `id` names what it made.
    pub const ALREADY_CREATED: &str = "already_created";
    /// 410: the changes since the cursor are not known any more; list again.
    pub const CURSOR_GONE: &str = "cursor_gone";
    pub const PRECONDITION_FAILED: &str = "precondition_failed";
    pub const PAYLOAD_TOO_LARGE: &str = "payload_too_large";
    pub const URI_TOO_LONG: &str = "uri_too_long";
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "unsupported_media_type";
    /// 409: the backup is not what was written; use another one.
    pub const BACKUP_DAMAGED: &str = "backup_damaged";
    /// 503: this server has no place for backups.
    pub const BACKUPS_DISABLED: &str = "backups_disabled";
    /// 503: this server has no mail server, so nobody can sign in by code.
    pub const MAIL_DISABLED: &str = "mail_disabled";
    pub const RATE_LIMITED: &str = "rate_limited";
    pub const INTERNAL: &str = "internal";
    pub const UNAVAILABLE: &str = "unavailable";
    /// 503: the server has as much to do as it takes on; see `Retry-After`.
    pub const OVERLOADED: &str = "overloaded";
    pub const DISK_FULL: &str = "disk_full";
    pub const TIMEOUT: &str = "timeout";
}

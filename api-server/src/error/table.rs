//! What each error is to the caller.

use std::borrow::Cow;

use axum::http::StatusCode;
use sealpod_core::wire::problem::codes;

use super::ApiError;
use super::texts::{over, too_many};

impl ApiError {
    /// The status, stable code, title and text for the caller of each error.
    #[allow(clippy::too_many_lines, reason = "a table, one row an error")]
    pub(super) fn parts(&self) -> (StatusCode, &'static str, &'static str, Cow<'static, str>) {
        use StatusCode as S;
        let fixed = Cow::Borrowed;
        match self {
            Self::Invalid(_) => (
                S::BAD_REQUEST,
                codes::VALIDATION_FAILED,
                "The request is not valid",
                fixed("`errors` names each field and what is wrong with it"),
            ),
            Self::Malformed(detail) => (
                S::BAD_REQUEST,
                codes::VALIDATION_FAILED,
                "The request is not valid",
                detail.clone(),
            ),
            Self::Unauthorized => (
                S::UNAUTHORIZED,
                codes::UNAUTHORIZED,
                "No valid credential",
                fixed(
                    "send a credential of this plane that is valid: see `WWW-Authenticate` and the API's description",
                ),
            ),
            Self::WrongCode => (
                S::UNAUTHORIZED,
                codes::UNAUTHORIZED,
                "The code is not valid",
                fixed(
                    "the code is wrong, or was used, replaced or ended by a wrong guess already; ask for a new one with POST /api/auth/login",
                ),
            ),
            Self::Forbidden(detail) | Self::Denied(detail) => {
                (S::FORBIDDEN, codes::FORBIDDEN, "Not allowed", detail.clone())
            }
            Self::NotFound(detail) => (S::NOT_FOUND, codes::NOT_FOUND, "Not found", detail.clone()),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                codes::METHOD_NOT_ALLOWED,
                "Method not allowed",
                fixed("this path does not take this method; `Allow` names those it takes"),
            ),
            Self::Conflict(detail) => (S::CONFLICT, codes::CONFLICT, "Conflict", detail.clone()),
            Self::Refused { code, detail } => (S::CONFLICT, code, "Conflict", fixed(detail)),
            Self::AlreadyCreated { .. } => (
                S::CONFLICT,
                codes::ALREADY_CREATED,
                "Done before",
                fixed(
                    "this request was done when it was first sent under its Idempotency-Key, and the answer is not kept, as one that shows a key never is; `id` names what it made. A key that was lost is replaced by rotating it",
                ),
            ),
            Self::Repeated => (
                S::CONFLICT,
                codes::IDEMPOTENCY_IN_PROGRESS,
                "In progress",
                fixed("the same request is being done; try again after `Retry-After` seconds for its answer"),
            ),
            Self::CursorGone(detail) => (S::GONE, codes::CURSOR_GONE, "The cursor is gone", fixed(detail)),
            Self::Stale(detail) => (
                S::PRECONDITION_FAILED,
                codes::PRECONDITION_FAILED,
                "Precondition failed",
                detail.clone(),
            ),
            Self::PayloadTooLarge { limit } => (
                S::PAYLOAD_TOO_LARGE,
                codes::PAYLOAD_TOO_LARGE,
                "The body is too large",
                Cow::Owned(format!("this call takes a body of at most {limit} bytes")),
            ),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                codes::UNSUPPORTED_MEDIA_TYPE,
                "The body is not JSON",
                fixed("send JSON with `Content-Type: application/json`"),
            ),
            Self::SlowBody => (
                S::REQUEST_TIMEOUT,
                codes::TIMEOUT,
                "The body took too long",
                fixed("the body did not arrive within its time limit; send it again, faster or in smaller pieces"),
            ),
            Self::UriTooLong { limit } => (
                S::URI_TOO_LONG,
                codes::URI_TOO_LONG,
                "The URI is too long",
                Cow::Owned(format!("this server takes a path and query of at most {limit} bytes")),
            ),
            Self::TooMany(crowd) => (
                S::CONFLICT,
                codes::QUOTA_EXCEEDED,
                "Quota exceeded",
                too_many(*crowd).into(),
            ),
            Self::OverQuota(quota, limit) => (
                S::CONFLICT,
                codes::QUOTA_EXCEEDED,
                "Quota exceeded",
                over(*quota, *limit).into(),
            ),
            Self::RateLimited { .. } => (
                S::TOO_MANY_REQUESTS,
                codes::RATE_LIMITED,
                "Too many requests",
                fixed("this key or address has used up its share for now; try again after `Retry-After` seconds"),
            ),
            Self::MailDisabled => (
                S::SERVICE_UNAVAILABLE,
                codes::MAIL_DISABLED,
                "Login by e-mail is off",
                fixed("this server has no mail server to send login codes with; whoever runs it sets SEALPOD_SMTP_URL"),
            ),
            Self::BackupsDisabled => (
                S::SERVICE_UNAVAILABLE,
                codes::BACKUPS_DISABLED,
                "Backups are off",
                fixed("this server has no place for backups; whoever runs it sets SEALPOD_BACKUP_URL"),
            ),
            Self::BackupDamaged(detail) => (
                S::CONFLICT,
                codes::BACKUP_DAMAGED,
                "The backup is damaged",
                detail.clone().into(),
            ),
            Self::Timeout => (
                S::SERVICE_UNAVAILABLE,
                codes::TIMEOUT,
                "Time limit exceeded",
                fixed("the request took longer than its time limit; try again"),
            ),
            Self::Overloaded { .. } => (
                S::SERVICE_UNAVAILABLE,
                codes::OVERLOADED,
                "Too much to do",
                fixed(
                    "the server has as much to do as it can, and did nothing of this; try again after `Retry-After` seconds",
                ),
            ),
            Self::Stopping => (
                S::SERVICE_UNAVAILABLE,
                codes::UNAVAILABLE,
                "The server is stopping",
                fixed("the server is stopping; try again after `Retry-After` seconds"),
            ),
            Self::NotReady => (
                S::SERVICE_UNAVAILABLE,
                codes::UNAVAILABLE,
                "Not ready",
                fixed("the server is not ready; `/readyz` on its metrics listener says why"),
            ),
            Self::Unavailable { detail, .. } => (
                S::SERVICE_UNAVAILABLE,
                codes::UNAVAILABLE,
                "Not available now",
                fixed(detail),
            ),
            Self::DiskFull { .. } => (
                S::INSUFFICIENT_STORAGE,
                codes::DISK_FULL,
                "The disk is full",
                fixed("the server's disk is full, nothing was written; free space on its data volume and try again"),
            ),
            Self::Unrecordable { .. } => (
                S::SERVICE_UNAVAILABLE,
                codes::DISK_FULL,
                "The disk is full",
                fixed(
                    "the server's disk is full, so this could not be put on record, and nothing was given out; free space on its data volume and try again",
                ),
            ),
            Self::Internal { .. } => (
                S::INTERNAL_SERVER_ERROR,
                codes::INTERNAL,
                "Internal error",
                fixed("the server failed; its log has the cause under this answer's X-Request-Id"),
            ),
        }
    }
}

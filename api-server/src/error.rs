//! What the planes answer when a request fails, as RFC 9457 problem documents.
//!
//! An error has two texts: the caller's, made here from fixed parts, and the cause of a 5xx, which travels beside the
//! response as [`Cause`] and is logged once at the boundary (`app::layers`). Neither ever quotes what was sent, but
//! for the names of unknown fields and parameters.

mod texts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::problem::{CONTENT_TYPE, Problem, codes};
use uuid::Uuid;

use crate::limits::{Exceeded, Overloaded};
use crate::store::{Crowd, Quota, Refusal, StoreError};
use texts::{over, taken, taken_again, too_many};

/// What is wrong with each field of a request, by the name under which the caller knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors(BTreeMap<String, Vec<String>>);

/// Most fields that one answer names, and most faults of one of them; the rest would help nobody.
const MAX_FIELDS: usize = 100;
const MAX_FAULTS: usize = 10;

impl FieldErrors {
    pub fn add(&mut self, field: impl Into<String>, why: impl Into<String>) {
        let field = field.into();
        if self.0.len() < MAX_FIELDS || self.0.contains_key(&field) {
            let faults = self.0.entry(field).or_default();
            if faults.len() < MAX_FAULTS {
                faults.push(why.into());
            }
        }
    }

    pub fn one(field: impl Into<String>, why: impl Into<String>) -> Self {
        let mut errors = Self::default();
        errors.add(field, why);
        errors
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` of what was read, where nothing is wrong with any field.
    pub fn finish<T>(self, read: Option<T>) -> Result<T, ApiError> {
        match read {
            Some(read) if self.is_empty() => Ok(read),
            _ => Err(ApiError::Invalid(self)),
        }
    }
}

/// Why a request was not done.
#[derive(Debug)]
pub enum ApiError {
    /// 400 with the fields.
    Invalid(FieldErrors),
    /// 400 without a field to name.
    Malformed(Cow<'static, str>),
    Unauthorized,
    /// 401 for a login code that is wrong, used, dead or none at all: the same answer for each.
    WrongCode,
    /// 403 that goes on record on its way out (see `auth::refused`).
    Forbidden(Cow<'static, str>),
    /// 403 that is on record already.
    Denied(Cow<'static, str>),
    NotFound(Cow<'static, str>),
    MethodNotAllowed,
    Conflict(Cow<'static, str>),
    /// 409 with a code of its own, by which programs tell it from a name that is taken.
    Refused {
        code: &'static str,
        detail: &'static str,
    },
    /// 409: the request was done before, and its answer is not kept.
    AlreadyCreated {
        id: Option<Uuid>,
    },
    /// 409: the same request is being done by another execution.
    Repeated,
    /// 410: what moved since a cursor is not known any more.
    CursorGone(&'static str),
    /// 412: the object is in another state than the caller read.
    Stale(Cow<'static, str>),
    PayloadTooLarge {
        limit: usize,
    },
    UnsupportedMediaType,
    /// 408: the body took too long to arrive.
    SlowBody,
    UriTooLong {
        limit: usize,
    },
    /// 409: the organization holds as much of this as it may.
    OverQuota(Quota, u64),
    /// 409: more than anybody needs, and than the server wants to read at each request.
    TooMany(Crowd),
    /// The caller, or its address, has used up its share.
    RateLimited {
        seconds: u64,
    },
    Timeout,
    /// 503: more is asked of the server than it takes on at a time.
    Overloaded {
        seconds: u64,
    },
    /// 503: this server has no place for backups.
    BackupsDisabled,
    /// 409: the archive is not what was written.
    BackupDamaged(String),
    /// 503 for logins on a server that has no way to send codes.
    MailDisabled,
    /// The server stops; another try finds its successor.
    Stopping,
    /// What the readiness probe says; the reasons are for the operators' listener.
    NotReady,
    /// The server cannot do it now.
    Unavailable {
        detail: &'static str,
        cause: String,
    },
    DiskFull {
        cause: String,
    },
    Internal {
        cause: String,
    },
}

/// Why a 5xx was answered: for the log, never for the caller.
#[derive(Debug, Clone)]
pub struct Cause(pub Arc<str>);

/// The `code` of an error's answer: for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct Code(pub &'static str);

/// Stands beside a 403 that is not on record yet.
#[derive(Debug, Clone, Copy)]
pub struct Unrecorded;

impl ApiError {
    #[allow(clippy::needless_pass_by_value, reason = "errors are made to be taken")]
    pub fn invalid(field: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid(FieldErrors::one(field, why.to_string()))
    }

    #[allow(clippy::needless_pass_by_value, reason = "`map_err` gives it the error itself")]
    pub fn internal(cause: impl ToString) -> Self {
        Self::Internal {
            cause: cause.to_string(),
        }
    }

    pub fn not_found(what: &'static str) -> Self {
        Self::NotFound(Cow::Borrowed(what))
    }

    /// 404 for a path that leads nowhere.
    pub fn no_such_path() -> Self {
        Self::not_found("this server has no such path")
    }

    /// The status, stable code, title and text for the caller of each error.
    #[allow(clippy::too_many_lines, reason = "a table, one row an error")]
    fn parts(&self) -> (StatusCode, &'static str, &'static str, Cow<'static, str>) {
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
            Self::Internal { .. } => (
                S::INTERNAL_SERVER_ERROR,
                codes::INTERNAL,
                "Internal error",
                fixed("the server failed; its log has the cause under this answer's X-Request-Id"),
            ),
        }
    }

    /// Seconds for `Retry-After`, where another try soon may do.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Repeated | Self::Timeout | Self::Stopping | Self::NotReady | Self::Unavailable { .. } => {
                Some(HeaderValue::from_static("1"))
            }
            Self::RateLimited { seconds } | Self::Overloaded { seconds } => Some(HeaderValue::from(*seconds)),
            _ => None,
        }
    }
}

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        Self::RateLimited {
            seconds: exceeded.retry_after,
        }
    }
}

impl From<Overloaded> for ApiError {
    fn from(overloaded: Overloaded) -> Self {
        Self::Overloaded {
            seconds: overloaded.retry_after,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        match error {
            StoreError::NotFound(object) => Self::NotFound(format!("this {object} does not exist").into()),
            StoreError::Conflict(object) => Self::Conflict(taken(object).into()),
            StoreError::Repeated => Self::Repeated,
            StoreError::Stale(object) => Self::Stale(
                format!("this {object} was changed since you read it, nothing was written; read it again and send its new `ETag`").into(),
            ),
            StoreError::Moved(_) => Self::Unavailable {
                detail: "others keep changing the same object; try again",
                cause,
            },
            StoreError::Refused(Refusal::LastOwner) => Self::Refused {
                code: codes::LAST_OWNER,
                detail: "an organization keeps at least one owner; make another member owner first",
            },
            StoreError::Refused(Refusal::AboveOwnRole) => {
                Self::Forbidden("nobody grants, changes or removes a role above their own".into())
            }
            StoreError::Refused(Refusal::Managed) => Self::Refused {
                code: codes::MANAGED,
                detail: "an operator owns this project: rename its Application object, or release it there first",
            },
            StoreError::Refused(Refusal::NameTaken(object)) => Self::Conflict(taken_again(object).into()),
            StoreError::Refused(Refusal::ParentDeleted(object)) => {
                Self::Conflict(format!("the {object} that it was in is deleted; restore that first").into())
            }
            StoreError::Refused(Refusal::EmptyWindow) => Self::invalid("expires_at", "must be after `not_before`"),
            StoreError::Refused(Refusal::TooMany(crowd)) => Self::TooMany(crowd),
            StoreError::Refused(Refusal::OverQuota(quota, limit)) => Self::OverQuota(quota, limit),
            StoreError::DiskFull => Self::DiskFull { cause },
            StoreError::TooSlow => Self::Timeout,
            StoreError::Busy => Self::Unavailable {
                detail: "the database is locked by another program; try again",
                cause,
            },
            StoreError::Failed(_) => Self::Unavailable {
                detail: "the database does not work; the server's log says why",
                cause,
            },
            StoreError::Internal(_) => Self::Internal { cause },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, title, detail) = self.parts();
        let retry_after = self.retry_after();
        let unrecorded = matches!(self, Self::Forbidden(_));
        let id = match &self {
            Self::AlreadyCreated { id } => *id,
            _ => None,
        };
        let (errors, cause) = match self {
            Self::Invalid(FieldErrors(errors)) => (errors, None),
            Self::Unavailable { cause, .. } | Self::DiskFull { cause } | Self::Internal { cause } => {
                (BTreeMap::new(), Some(cause))
            }
            _ => (BTreeMap::new(), None),
        };
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into_owned(),
            code: code.to_owned(),
            errors,
            id,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"sealpod\""),
            );
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            // What is still to come of the body would be taken for the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(Code(code));
        if let Some(cause) = cause {
            response.extensions_mut().insert(Cause(cause.into()));
        }
        if unrecorded {
            response.extensions_mut().insert(Unrecorded);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_server_error_stays_out_of_the_answer() {
        let response = ApiError::internal("canary").into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(&*response.extensions().get::<Cause>().unwrap().0, "canary");
        let (_, _, _, detail) = ApiError::internal("canary").parts();
        assert!(!detail.contains("canary"));
    }

    #[test]
    fn an_answer_names_a_bounded_number_of_fields() {
        let mut errors = FieldErrors::default();
        for n in 0..1_000 {
            errors.add(format!("[{n}]"), "is wrong");
        }
        errors.add("[0]", "is wrong twice");
        assert_eq!(errors.0.len(), MAX_FIELDS);
        assert_eq!(errors.0["[0]"].len(), 2);
        // A body or query can repeat one name a hundred thousand times.
        for _ in 0..1_000 {
            errors.add("[0]", "is wrong");
        }
        assert_eq!(errors.0["[0]"].len(), MAX_FAULTS);
    }
}

//! What the planes answer when a request fails, as RFC 9457 problem documents.
//!
//! An error has two texts: the caller's, made here from fixed parts, and the cause of a 5xx, which travels beside the
//! response as [`Cause`] and is logged once at the boundary (`app::layers`). Neither ever quotes what was sent, but
//! for the names of unknown fields and parameters.

mod made;
mod table;
mod texts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::problem::{CONTENT_TYPE, Problem};
use uuid::Uuid;

use crate::store::{Crowd, Quota};

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
    /// 503: there is no room to put on record what would be given out.
    Unrecordable {
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

    /// Seconds for `Retry-After`, where another try soon may do.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Repeated
            | Self::Timeout
            | Self::Stopping
            | Self::NotReady
            | Self::Unavailable { .. }
            | Self::Unrecordable { .. } => Some(HeaderValue::from_static("1")),
            Self::RateLimited { seconds } | Self::Overloaded { seconds } => Some(HeaderValue::from(*seconds)),
            _ => None,
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
            Self::Unavailable { cause, .. }
            | Self::DiskFull { cause }
            | Self::Unrecordable { cause }
            | Self::Internal { cause } => (BTreeMap::new(), Some(cause)),
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

//! What becomes of the errors of other parts.

use sealpod_core::wire::problem::codes;

use super::ApiError;
use super::texts::{taken, taken_again};
use crate::limits::{Exceeded, Overloaded};
use crate::store::{Refusal, StoreError};

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

impl ApiError {
    /// What cannot be answered because that cannot be put on record.
    pub fn unrecorded(error: &StoreError) -> Self {
        let cause = error.to_string();
        match error {
            StoreError::DiskFull => Self::Unrecordable { cause },
            _ => Self::Unavailable {
                detail: "the audit entry could not be stored, so nothing was given out; the server's log says why",
                cause,
            },
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

//! The feed of changes: what moved in the default organization since a cursor, or a wait for it.
//!
//! It is a view of the organization's audit log, where every change stands in its order and in the transaction that made
//! it, so there is no second truth that could fall behind; and of the clock, by which versions begin and end.

mod cursor;
mod poll;

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

use crate::routes::shared;

pub use cursor::{Cursor, Place};
pub use poll::answer;

/// What a question for changes can be answered.
pub struct Gone;

impl IntoResponses for Gone {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        shared(&["410"])
    }
}

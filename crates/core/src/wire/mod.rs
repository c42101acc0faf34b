//! The JSON of the REST planes. Requests refuse unknown fields by name; answers are read leniently, so that an older
//! client goes on beside a newer server.

pub mod audit;
pub mod bundle;
mod edit;
pub mod headers;
pub mod login;
pub mod management;
pub mod org;
pub mod people;
pub mod problem;
pub mod quotas;
pub mod trash;

use std::collections::BTreeMap;

pub use edit::Edit;

/// Labels of applications, environments and service accounts.
pub type Labels = BTreeMap<String, String>;

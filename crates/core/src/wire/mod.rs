//! The JSON of the REST planes. Requests refuse unknown fields by name; answers are read leniently, so that an older
//! client goes on beside a newer server.

pub mod audit;
pub mod backups;
pub mod bundle;
pub mod consumers;
mod edit;
pub mod headers;
pub mod keys;
pub mod login;
pub mod management;
pub mod org;
pub mod people;
pub mod problem;
pub mod quotas;
pub mod trash;

use std::collections::BTreeMap;

pub use edit::Edit;

/// Most labels of one object, and their longest keys and values in characters.
pub const MAX_LABELS: usize = 64;
pub const MAX_LABEL_KEY: usize = 200;
pub const MAX_LABEL_VALUE: usize = 1_000;
/// Longest life of a key after the one that replaces it was made, in seconds: 30 days.
pub const MAX_OVERLAP_SECONDS: u64 = 30 * 24 * 3_600;

/// Labels of applications, environments and service accounts.
pub type Labels = BTreeMap<String, String>;

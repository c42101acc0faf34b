//! What there is, now, of what reports of pods speak of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Location, Result, Store, Subject, sqlite};

/// Whom and what reports name.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    pub subjects: Vec<Subject>,
    pub keys: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Those of the subjects that still belong to the organization.
    pub present: HashSet<Subject>,
    /// Numbers of the active versions, of the keys that have one.
    pub active: HashMap<String, u64>,
}

impl Store {
    /// Looks all of it up as of one instant.
    pub async fn running(&self, location: Arc<Location>, reported: Reported) -> Result<Running> {
        self.engine
            .read(move |view| sqlite::consumers::running(view, &location, reported))
            .await
    }
}

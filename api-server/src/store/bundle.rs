//! One consistent snapshot of an environment, as a bundle needs it.

use std::collections::BTreeMap;

use sealpod_core::{Pattern, Time};

use super::{AclRule, Configuration, EnvironmentRef, Location, Result, Store, Subject, sqlite};
use crate::crypto::{Aad, Sealed};
use crate::ids::{SecretId, VersionId};

#[derive(Debug, Clone)]
pub struct BundleQuery {
    pub environment: EnvironmentRef,
    /// Whose rules to read in the same snapshot.
    pub subject: Option<Subject>,
    pub selection: Selection,
    pub configurations: bool,
    /// Whether to read the sealed values too.
    pub values: bool,
}

/// Which secrets are asked for.
#[derive(Debug, Clone)]
pub enum Selection {
    All,
    Named {
        keys: Vec<String>,
        patterns: Vec<Pattern>,
        /// Versions that are read instead of the active one.
        pinned: BTreeMap<String, u64>,
    },
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub location: Location,
    /// The instant that "active" refers to.
    pub taken_at: Time,
    /// Live rules of the query's subject; empty without one.
    pub rules: Vec<AclRule>,
    /// By name, each once: the pinned version where one is pinned, else the active one. A secret that is missing here
    /// does not exist, has no such version that can be read now, or is not permitted.
    pub secrets: Vec<SnapshotVersion>,
    /// By key; empty where they were not asked for.
    pub configurations: Vec<Configuration>,
    /// When the passing of time alone changes `secrets` next.
    pub next_change_at: Option<Time>,
}

#[derive(Debug, Clone)]
pub struct SnapshotVersion {
    pub secret: SecretId,
    pub name: String,
    pub id: VersionId,
    pub number: u64,
    pub not_before: Option<Time>,
    pub expires_at: Option<Time>,
    /// `None` where values were not asked for.
    pub sealed: Option<Sealed>,
}

impl SnapshotVersion {
    pub fn aad(&self, location: &Location) -> Aad {
        location.version_aad(self.secret, self.id)
    }
}

impl Store {
    /// Reads all of it as of one instant. Only secrets that `permits` allows are looked at, given where the environment
    /// is and what rules the subject has.
    pub async fn bundle<P>(&self, query: BundleQuery, permits: P) -> Result<Snapshot>
    where
        P: Fn(&Location, &[AclRule], &str) -> bool + Send + 'static,
    {
        self.engine
            .read(move |view| sqlite::bundle::snapshot(view, &query, &permits))
            .await
    }
}

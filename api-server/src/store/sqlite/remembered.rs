//! What is read again and again, kept in memory for as long as it is true: who holds a key and with which rules, where
//! an environment is, and the active version of a secret, sealed as the database has it. Never a value, never a data key.
//! See `docs/adr/0012-what-is-remembered.md`.

use std::sync::Arc;

use sealpod_core::Time;

use super::super::{ActiveVersion, EnvironmentRef, KeyHolder, Location, OrganizationRef, ProjectRef};
use super::cache::Cache;
use super::fresh::{Freshness, Stamp, Touched};
use crate::crypto::KeyDigest;
use crate::ids::EnvironmentId;

/// Most bytes of one generation of each; there are two of them.
const KEYS: usize = 8 * 1024 * 1024;
const LOCATIONS: usize = 512 * 1024;
const VERSIONS: usize = 8 * 1024 * 1024;

/// An active version, and until when the passing of time alone leaves it the active one.
#[derive(Clone)]
struct Active {
    version: Arc<ActiveVersion>,
    from: Time,
    until: Option<Time>,
    stamp: Stamp,
}

pub(super) struct Remembered {
    pub(super) freshness: Freshness,
    keys: Cache<[u8; 32], (Stamp, KeyHolder)>,
    locations: Cache<EnvironmentRef, (Stamp, Arc<Location>)>,
    versions: Cache<(EnvironmentId, Box<str>), Active>,
}

impl Remembered {
    pub(super) fn new() -> Self {
        Self {
            freshness: Freshness::new(),
            keys: Cache::new(KEYS),
            locations: Cache::new(LOCATIONS),
            versions: Cache::new(VERSIONS),
        }
    }

    /// Take it before looking at the database for what is to be remembered.
    pub(super) fn stamp(&self) -> Stamp {
        self.freshness.stamp()
    }

    /// Whose key it is, as of `clock`.
    pub(super) fn key(&self, digest: &KeyDigest, clock: Time) -> Option<KeyHolder> {
        let is_true = |(stamp, holder): &(Stamp, KeyHolder)| {
            self.freshness.holds(*stamp) && holder.expires_at().is_none_or(|end| end > clock)
        };
        self.keys.get(&digest.0, is_true).map(|(_, holder)| holder)
    }

    pub(super) fn keep_key(&self, stamp: Stamp, digest: &KeyDigest, holder: &KeyHolder) {
        let bytes = holder.bytes();
        self.keys.put(digest.0, (stamp, holder.clone()), bytes);
    }

    pub(super) fn location(&self, environment: &EnvironmentRef) -> Option<Arc<Location>> {
        let is_true = |(stamp, _): &(Stamp, Arc<Location>)| self.freshness.holds(*stamp);
        self.locations.get(environment, is_true).map(|(_, location)| location)
    }

    pub(super) fn keep_location(&self, stamp: Stamp, environment: EnvironmentRef, location: Arc<Location>) {
        let names = match &environment.project {
            ProjectRef::Slug { organization, project } => {
                let organization = match organization {
                    OrganizationRef::Name(name) => name.len(),
                    OrganizationRef::Id(_) => 0,
                };
                organization + project.len()
            }
            ProjectRef::Id(_) => 0,
        };
        // The location has these names too.
        let bytes = 2 * (names + environment.environment.len() + 128);
        self.locations.put(environment, (stamp, location), bytes);
    }

    pub(super) fn active_version(&self, location: &Location, name: &str, now: Time) -> Option<Arc<ActiveVersion>> {
        let is_true = |active: &Active| {
            self.freshness.holds_for(active.stamp, active.version.secret)
                // The clock may have been set back.
                && active.from <= now
                && active.until.is_none_or(|until| now < until)
        };
        let key = (location.environment, Box::from(name));
        self.versions.get(&key, is_true).map(|active| active.version)
    }

    pub(super) fn keep_version(&self, stamp: Stamp, version: &Arc<ActiveVersion>, (from, until): (Time, Option<Time>)) {
        let key = (version.location.environment, Box::from(version.name.as_str()));
        let bytes = 2 * version.name.len() + version.sealed.as_bytes().len() + 320;
        let active = Active {
            version: Arc::clone(version),
            from,
            until,
            stamp,
        };
        self.versions.put(key, active, bytes);
    }

    /// Only the one thread that writes calls this.
    pub(super) fn change<'a>(&'a self, touched: &'a Touched) -> super::fresh::Changing<'a> {
        self.freshness.change(touched)
    }
}

//! One consistent snapshot of an environment, as a bundle needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealpod_core::wire::people::Role;
use sealpod_core::{Pattern, Time};

use super::{
    AccountKey, AclRule, Configuration, EnvironmentRef, Location, Organization, Result, Session, Store, Subject, sqlite,
};
use crate::crypto::{Aad, KeyDigest, Sealed};
use crate::ids::{SecretId, VersionId};

#[derive(Debug, Clone)]
pub struct BundleQuery {
    pub environment: EnvironmentRef,
    pub selection: Selection,
    pub configurations: bool,
    /// Most bytes of names, sealed values and configurations together.
    pub most: usize,
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

/// Decides about a read while it goes on, so that all of it is of one instant.
pub trait Judge: Send + 'static {
    /// Whether the secret may be looked at, by where it is and by the rules that were read with it.
    fn permits(&self, location: &Location, rules: &[AclRule], name: &str) -> bool;

    /// Whether values are wanted whatever else is found.
    fn wants_values(&self) -> bool;

    /// Whether values are wanted, given everything else. Asked once, at the end.
    fn wants_values_of(&mut self, snapshot: &Snapshot) -> bool;
}

/// What came of a read, with the judge who knows more of it.
#[derive(Debug)]
pub enum Bundled<J> {
    /// It would be more than the query takes.
    TooMuch,
    Read(Box<(J, Snapshot)>),
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub location: Location,
    /// The instant that "active" refers to.
    pub taken_at: Time,
    /// Live rules of the subject; empty without one.
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
    /// `None` where values were not wanted.
    pub sealed: Option<Sealed>,
}

impl SnapshotVersion {
    pub fn aad(&self, location: &Location) -> Aad {
        location.version_aad(self.secret, self.id)
    }
}

/// A credential whose owner is to be found in the snapshot itself.
#[derive(Debug, Clone, Copy)]
pub enum Credential {
    Key(KeyDigest),
    Session(KeyDigest),
    /// It is known who that is.
    AdminKey,
}

/// Whose credential it is, and what the owner is in the organization that the query names.
#[derive(Debug)]
pub enum Asker {
    Account(Arc<AccountKey>),
    User {
        session: Session,
        organization: Organization,
        /// The role and rules of a member.
        membership: Option<(Role, Vec<AclRule>)>,
    },
    AdminKey(Organization),
}

impl Store {
    /// Reads all of it as of one instant, with the rules of a subject.
    pub async fn bundle<J: Judge>(&self, query: BundleQuery, subject: Option<Subject>, judge: J) -> Result<Bundled<J>> {
        self.engine
            .read(move |view| sqlite::bundle::read(view, &query, subject, judge))
            .await
    }

    /// The same for whoever has the credential by now, who is found in the same snapshot; `None` where it is unknown or
    /// dead. `admit` says who judges for the owner, or nobody, where the organization is none of the owner's.
    pub async fn bundle_again<J, A>(
        &self,
        query: BundleQuery,
        credential: Credential,
        admit: A,
    ) -> Result<Option<Bundled<J>>>
    where
        J: Judge,
        A: FnOnce(Asker) -> Option<J> + Send + 'static,
    {
        let clock = self.engine.credential_clock();
        let engine = Arc::clone(&self.engine);
        let found = move |asker: Asker| {
            if let Asker::Account(key) = &asker {
                engine.note_use(key.account.id);
            }
            admit(asker)
        };
        self.engine
            .read(move |view| sqlite::bundle::again(view, clock, &query, credential, found))
            .await
    }
}

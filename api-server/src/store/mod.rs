//! Everything that is kept. What stands above sees use cases: never SQL, row ids, files or locks, and never which
//! engine runs. `sqlite/` holds that engine; each file beside this one holds the use cases of one resource.
//!
//! - A change and its audit entry are one transaction; a use case that changes something takes a [`By`] for it. Whoever
//!   reads a value calls [`Store::record`] and answers once that returns.
//! - Values come and go as [`Sealed`](crate::crypto::Sealed) only: plaintext cannot be stored, by type.
//! - After a commit, whoever [watches](Store::watch) what changed is woken.

mod accounts;
mod acl;
mod backup;
mod bundle;
mod calendar;
mod changes;
mod configurations;
mod consumers;
mod environments;
mod error;
mod expect;
mod idempotency;
mod interest;
mod keys;
mod log;
pub mod login;
mod moved;
mod options;
mod organizations;
mod people;
mod projects;
mod quotas;
mod refs;
mod retention;
mod rewrap;
mod secrets;
mod sqlite;
mod trash;
mod values;
pub mod version;
mod vitals;
mod watch;

use std::sync::Arc;

use uuid::Uuid;

pub use accounts::{Account, AccountScope, NewAccount, Rotated};
pub use acl::{AclRule, NewRule, RuleQuery, Subject};
pub use backup::{
    Comparison, Differences, Facts, beside, compare, copy, copy_until, epoch_of, folder_of, inspect, known_schema,
    needed_keys, require_room, require_room_for_copy, sync_folder,
};
pub use bundle::{Asker, BundleQuery, Bundled, Credential, Judge, Selection, Snapshot, SnapshotVersion};
pub use changes::{ChangeEntry, ChangesPage, ChangesQuery, Edge, Position};
pub use configurations::{Configuration, ConfigurationPage, ConfigurationSlot, ConfigurationWrite, Configurations};
pub use consumers::{Reported, Running};
pub use environments::{Environment, EnvironmentUpdate, NewEnvironment};
pub use error::{Crowd, Object, OpenError, Refusal, StoreError};
pub use expect::Expect;
pub use idempotency::Done;
pub use interest::Interest;
pub use keys::{AccountKey, ApplicationKey, KeyHolder};
pub use log::{AuditPage, AuditQuery, AuditReport, ChainReport};
pub use login::{Attempt, CODE_SECONDS, CodeRequest, LoginKeys, Requested, Verified};
pub use moved::while_moved;
pub use options::{Admit, Options, Trace};
pub use organizations::Organization;
pub use people::{Grantor, Membership, NewSession, OrganizationMember, Session, User};
pub use projects::{NewProject, Project, ProjectEdit, ProjectUpdate};
pub use quotas::{Quota, QuotaUpdate, Quotas, Usage};
pub use refs::{EnvironmentRef, Location, OrganizationRef, Page, ProjectRef};
pub use retention::{Ages, Dropped, MAX_SEGMENT};
pub use rewrap::{KeyNeeds, Piece, Place, Shelf, Wrapped};
pub use secrets::{ListedSecret, NewSecret, Provision, Secret, SecretDetail};
pub use trash::{Fate, Purged, TrashPage, Trashed};
pub use values::{ActiveVersion, Appended, Creator, NewVersion, Slot, Version, VersionEdit, VersionInfo};
pub use vitals::{Meters, Reserve, Sizes, State, Stats, Trouble};
pub use watch::{Sequence, Topic, Watcher};

use crate::audit::By;
use crate::crypto::{Keyring, Pepper};

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A handle on the store; clones are the same store.
#[derive(Clone)]
pub struct Store {
    engine: Arc<sqlite::Engine>,
    /// Unknown until it is first asked for.
    calendar: Arc<tokio::sync::Mutex<Option<calendar::Calendar>>>,
}

impl Store {
    /// Opens the database, or makes it; blocks, so call it before serving. Nothing is written before the master key
    /// has proved to be the right one.
    pub fn open(options: &Options, keyring: &Keyring) -> Result<Self, OpenError> {
        Ok(Self {
            engine: Arc::new(sqlite::Engine::open(options, keyring)?),
            calendar: Arc::default(),
        })
    }

    /// Finishes what was begun, refuses everything new, and lets go of the file.
    pub async fn close(&self) {
        let engine = Arc::clone(&self.engine);
        // A panic in there was logged by the hook already, and the file is let go of either way.
        drop(tokio::task::spawn_blocking(move || engine.close()).await);
    }

    /// Names this database's history: another after each restore of a backup.
    pub fn epoch(&self) -> Uuid {
        self.engine.epoch()
    }

    /// What keys are hashed under.
    pub fn pepper(&self) -> &Pepper {
        self.engine.pepper()
    }

    /// Watches for changes. Call it before the read whose staleness matters: what changes after this call is not
    /// missed, however long the read takes.
    pub fn watch(&self, topics: &[Topic]) -> Watcher {
        self.engine.watch(topics)
    }

    /// Watches for what is of interest of the changes since then: since [`Store::sequence`] before the read whose
    /// staleness matters.
    pub fn watch_for(&self, topics: &[Topic], interest: &Arc<Interest>, since: Sequence) -> Watcher {
        self.engine.watch_for(topics, interest, since)
    }

    /// The last change so far; a read that begins behind this sees it.
    pub fn sequence(&self) -> Sequence {
        self.engine.sequence()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

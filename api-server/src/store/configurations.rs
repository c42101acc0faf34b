//! Configurations: entries of an environment whose values are sealed like secrets, without versions.

use sealpod_core::Time;

use super::{By, EnvironmentRef, Expect, Fate, Location, ProjectRef, Result, Store, sqlite};
use crate::crypto::{Aad, Sealed};
use crate::ids::{ConfigurationId, RevisionId, TrashId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    pub location: Location,
    pub id: ConfigurationId,
    /// New at every change: what an `ETag` is made of.
    pub revision_id: RevisionId,
    /// How many values the entry has had.
    pub revision: u64,
    pub key: String,
    pub sealed: Sealed,
    pub description: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
}

impl Configuration {
    pub fn aad(&self) -> Aad {
        self.location.configuration_aad(self.id, self.revision_id)
    }
}

/// A place for a configuration's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationSlot {
    pub location: Location,
    pub id: ConfigurationId,
    pub key: String,
    /// Whether there is an entry; if not, `id` is that of the one to be made.
    pub exists: bool,
}

impl ConfigurationSlot {
    pub fn aad(&self, revision: RevisionId) -> Aad {
        self.location.configuration_aad(self.id, revision)
    }
}

#[derive(Debug, Clone)]
pub struct ConfigurationWrite {
    pub slot: ConfigurationSlot,
    /// The id that `sealed` is bound to.
    pub revision: RevisionId,
    pub sealed: Sealed,
    /// `None` keeps what an entry has.
    pub description: Option<String>,
}

/// A piece of the list of a project's configurations, which is ordered by environment, then by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigurationPage {
    /// Of this environment, which has to exist; `None`: of all.
    pub environment: Option<String>,
    /// Begin behind this environment and key.
    pub after: Option<(String, String)>,
    /// At most so many entries.
    pub limit: usize,
    /// No further entry once the values, as they are sealed, reach this size.
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configurations {
    pub entries: Vec<Configuration>,
    /// Whether others stand behind them.
    pub more: bool,
}

impl Store {
    /// Live entries, by environment, then by key.
    pub async fn configuration_page(&self, project: ProjectRef, page: ConfigurationPage) -> Result<Configurations> {
        self.engine
            .read(move |view| sqlite::configurations::page(view, &project, &page))
            .await
    }

    pub async fn configuration(&self, environment: EnvironmentRef, key: &str) -> Result<Configuration> {
        let key = key.to_owned();
        self.engine
            .read(move |view| sqlite::configurations::find(view.conn, &environment, &key))
            .await
    }

    /// The place of an entry; the environment must exist, the entry need not.
    pub async fn locate_configuration(&self, environment: EnvironmentRef, key: &str) -> Result<ConfigurationSlot> {
        let key = key.to_owned();
        self.engine
            .read(move |view| sqlite::configurations::locate(view.conn, &environment, &key))
            .await
    }

    /// `Conflict(Configuration)` where a live entry has the key. `Moved`: locate and seal again.
    pub async fn create_configuration(&self, write: ConfigurationWrite, by: By) -> Result<Configuration> {
        self.engine
            .write(move |tx| sqlite::configurations::create(tx, write, &by))
            .await
    }

    /// `NotFound(Configuration)` where there was none at the look-up. `Moved`: locate and seal again.
    pub async fn update_configuration(
        &self,
        write: ConfigurationWrite,
        expect: Expect<Configuration>,
        by: By,
    ) -> Result<Configuration> {
        self.engine
            .write(move |tx| sqlite::configurations::update(tx, write, &expect, &by))
            .await
    }

    pub async fn delete_configuration(
        &self,
        environment: EnvironmentRef,
        key: &str,
        fate: Fate,
        by: By,
    ) -> Result<TrashId> {
        let key = key.to_owned();
        self.engine
            .write(move |tx| sqlite::configurations::delete(tx, &environment, &key, (fate, &by)))
            .await
    }
}

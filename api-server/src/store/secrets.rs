//! Secrets: slots of a project, without their values.

use sealpod_core::Time;

use super::{By, EnvironmentRef, Fate, Location, Page, ProjectRef, Result, Store, sqlite};
use crate::ids::{SecretId, TrashId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub id: SecretId,
    pub name: String,
    pub description: Option<String>,
    pub created_at: Time,
    /// When the slot, or a value of it, was last written.
    pub updated_at: Time,
}

#[derive(Debug, Clone)]
pub struct NewSecret {
    pub name: String,
    pub description: Option<String>,
}

/// A secret and what it has in each live environment of its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretDetail {
    pub secret: Secret,
    /// By slug.
    pub environments: Vec<Provision>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    pub slug: String,
    pub display_name: String,
    /// Whether any version was set there and not deleted since, active or not.
    pub provided: bool,
}

/// A secret as one environment has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSecret {
    pub id: SecretId,
    pub name: String,
    pub description: Option<String>,
    /// The active version; `None` where no version is active now.
    pub version: Option<u64>,
    /// When its newest version in this environment was set.
    pub updated_at: Time,
}

impl Store {
    /// Makes the slot without a value. `Conflict(Secret)` where a live one has the name.
    pub async fn create_secret(&self, project: ProjectRef, new: NewSecret, by: By) -> Result<SecretDetail> {
        self.engine
            .write(move |tx| sqlite::secrets::create(tx, &project, &new, &by))
            .await
    }

    /// Live secrets by name.
    pub async fn secrets(&self, project: ProjectRef, page: Page) -> Result<Vec<Secret>> {
        self.engine
            .read(move |view| sqlite::secrets::list(view.conn, &project, &page))
            .await
    }

    pub async fn secret(&self, project: ProjectRef, name: &str) -> Result<SecretDetail> {
        let name = name.to_owned();
        self.engine
            .read(move |view| sqlite::secrets::find(view.conn, &project, &name))
            .await
    }

    /// Deletes it in every environment. A secret made later under the name is a new one, whose versions start at 1.
    pub async fn delete_secret(&self, project: ProjectRef, name: &str, fate: Fate, by: By) -> Result<TrashId> {
        let name = name.to_owned();
        self.engine
            .write(move |tx| sqlite::secrets::delete(tx, &project, &name, (fate, &by)))
            .await
    }

    /// Secrets that have a version in the environment, by name, of those that `permits` lets through; the page's limit
    /// counts only them.
    pub async fn environment_secrets<P>(
        &self,
        environment: EnvironmentRef,
        page: Page,
        permits: P,
    ) -> Result<(Location, Vec<ListedSecret>)>
    where
        P: Fn(&Location, &str) -> bool + Send + 'static,
    {
        self.engine
            .read(move |view| sqlite::secrets::list_in_environment(view, &environment, &page, &permits))
            .await
    }

    /// Deletes it in this environment only: its versions there are hidden, and numbering goes on behind them.
    pub async fn hide_secret(&self, environment: EnvironmentRef, name: &str, fate: Fate, by: By) -> Result<TrashId> {
        let name = name.to_owned();
        self.engine
            .write(move |tx| sqlite::secrets::hide(tx, &environment, &name, (fate, &by)))
            .await
    }
}

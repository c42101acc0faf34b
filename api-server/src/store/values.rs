//! Values of secrets: versions.
//!
//! A value is bound to its place before it is stored, so writing takes two steps: [`Store::locate`] tells the place,
//! the caller seals for it, and [`Store::append_versions`] stores it there, if the place is still what it was.

use std::sync::Arc;

use sealpod_core::Time;
use sealpod_core::wire::Edit;
use uuid::Uuid;

use super::{By, EnvironmentRef, Location, ProjectRef, Result, Store, sqlite};
use crate::crypto::{Aad, Sealed};
use crate::ids::{SecretId, VersionId};

/// A place for versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub location: Location,
    pub secret: SecretId,
    pub name: String,
    /// Whether the secret is there; if not, writing makes it, under this id.
    pub exists: bool,
}

impl Slot {
    /// What a value is bound to that becomes `version` here.
    pub fn aad(&self, version: VersionId) -> Aad {
        self.location.version_aad(self.secret, version)
    }
}

#[derive(Debug, Clone)]
pub struct NewVersion {
    pub slot: Slot,
    /// The id that `sealed` is bound to.
    pub id: VersionId,
    pub sealed: Sealed,
    pub is_enabled: bool,
    pub not_before: Option<Time>,
    /// Later than `not_before`, where both are given.
    pub expires_at: Option<Time>,
    /// The version of the same place whose value it has again; it must still be there.
    pub from: Option<u64>,
}

/// What changes of a version; its value never does.
#[derive(Debug, Clone, Copy, Default)]
pub struct VersionEdit {
    pub is_enabled: Option<bool>,
    pub not_before: Edit<Option<Time>>,
    pub expires_at: Edit<Option<Time>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub number: u64,
    pub created_at: Time,
    pub secret_created_at: Time,
    /// Whether the secret had no version there before that was not deleted.
    pub first: bool,
}

/// Who set a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creator {
    /// As in [`crate::audit::ActorKind`].
    pub kind: String,
    pub id: Option<Uuid>,
    pub name: String,
}

/// A version without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    pub id: VersionId,
    pub number: u64,
    pub is_enabled: bool,
    pub not_before: Option<Time>,
    pub expires_at: Option<Time>,
    pub created_at: Time,
    pub created_by: Creator,
}

/// A version with its value and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub location: Location,
    pub secret: SecretId,
    pub name: String,
    pub secret_created_at: Time,
    pub info: VersionInfo,
    pub sealed: Sealed,
}

/// The version of a secret that counts, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveVersion {
    pub location: Arc<Location>,
    pub secret: SecretId,
    pub name: String,
    pub secret_created_at: Time,
    pub id: VersionId,
    pub number: u64,
    pub not_before: Option<Time>,
    pub expires_at: Option<Time>,
    pub created_at: Time,
    pub sealed: Sealed,
}

impl ActiveVersion {
    pub fn aad(&self) -> Aad {
        self.location.version_aad(self.secret, self.id)
    }
}

impl Version {
    pub fn aad(&self) -> Aad {
        self.location.version_aad(self.secret, self.info.id)
    }
}

impl Store {
    /// The place of a secret in each of `environments`, in that order. The project and the environments must exist; the
    /// secret need not.
    pub async fn locate(&self, project: ProjectRef, name: &str, environments: Vec<String>) -> Result<Vec<Slot>> {
        let name = name.to_owned();
        self.engine
            .read(move |view| sqlite::values::locate(view.conn, &project, &name, &environments))
            .await
    }

    /// Appends all of them or none, each as the next version of its slot, and makes a secret that was not there, with
    /// `description`; one that was there gets the description, if one is given. `Moved`: locate and seal again.
    pub async fn append_versions(
        &self,
        versions: Vec<NewVersion>,
        description: Option<String>,
        by: By,
    ) -> Result<Vec<Appended>> {
        self.engine
            .write_values(move |tx| sqlite::values::append(tx, &versions, description.as_deref(), &by))
            .await
    }

    /// The version that counts now. `NotFound(Version)` where the secret has none that is active.
    pub async fn active_version(&self, environment: EnvironmentRef, name: &str) -> Result<Arc<ActiveVersion>> {
        self.engine.active_version(environment, name).await
    }

    /// A version whatever its state, unless it was deleted: `NotFound(Version)`.
    pub async fn version(&self, environment: EnvironmentRef, name: &str, number: u64) -> Result<Version> {
        let name = name.to_owned();
        self.engine
            .read(move |view| sqlite::values::find(view.conn, &environment, &name, number))
            .await
    }

    /// Enables or disables a version that was not deleted, or gives it another window. `Refused(EmptyWindow)` where the
    /// window would end before it begins.
    pub async fn edit_version(
        &self,
        environment: EnvironmentRef,
        name: &str,
        number: u64,
        edit: VersionEdit,
        by: By,
    ) -> Result<VersionInfo> {
        let name = name.to_owned();
        self.engine
            .write_values(move |tx| sqlite::values::edit(tx, &environment, (&name, number), edit, &by))
            .await
    }

    /// Versions that were not deleted, newest first.
    pub async fn versions(&self, environment: EnvironmentRef, name: &str) -> Result<Vec<VersionInfo>> {
        let name = name.to_owned();
        self.engine
            .read(move |view| sqlite::values::list(view.conn, &environment, &name, (None, None)))
            .await
    }

    /// The newest of them below the number `before`, at most `limit`.
    pub async fn versions_below(
        &self,
        environment: EnvironmentRef,
        name: &str,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<VersionInfo>> {
        let name = name.to_owned();
        self.engine
            .read(move |view| sqlite::values::list(view.conn, &environment, &name, (before, Some(limit))))
            .await
    }
}

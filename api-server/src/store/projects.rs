//! Projects, which the management plane calls applications.

use sealpod_core::wire::{Edit, Labels};
use sealpod_core::{Slug, Time};

use super::{By, Expect, Fate, NewEnvironment, OrganizationRef, Page, ProjectRef, Result, Rotated, Store, sqlite};
use crate::crypto::NewKey;
use crate::ids::{OrganizationId, ProjectId, TrashId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub organization: OrganizationId,
    pub slug: String,
    pub display_name: String,
    pub description: Option<String>,
    pub labels: Labels,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Clone)]
pub struct NewProject {
    pub organization: OrganizationRef,
    pub slug: Slug,
    pub display_name: String,
    pub description: Option<String>,
    pub labels: Labels,
    /// The environments that it begins with.
    pub environments: Vec<NewEnvironment>,
    /// The application's key; none is made on the organization plane.
    pub key: Option<NewKey>,
}

/// The whole new state: what is `None` in a description becomes none; the slug never changes this way.
#[derive(Debug, Clone)]
pub struct ProjectUpdate {
    pub display_name: String,
    pub description: Option<String>,
    /// `None` keeps the labels.
    pub labels: Option<Labels>,
}

/// What changes of a project.
#[derive(Debug, Clone, Default)]
pub struct ProjectEdit {
    pub slug: Option<Slug>,
    pub display_name: Option<String>,
    pub description: Edit<Option<String>>,
}

impl Store {
    /// `Conflict(Project)` where a live one has the slug.
    pub async fn create_project(&self, new: NewProject, by: By) -> Result<Project> {
        self.engine
            .write(move |tx| sqlite::projects::create(tx, &new, &by))
            .await
    }

    /// Live projects by slug, of those that have every one of `labels`.
    pub async fn projects(
        &self,
        organization: impl Into<OrganizationRef>,
        labels: Labels,
        page: Page,
    ) -> Result<Vec<Project>> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::projects::list(view.conn, &organization, &labels, &page))
            .await
    }

    pub async fn project(&self, project: ProjectRef) -> Result<Project> {
        self.engine
            .read(move |view| sqlite::projects::find(view.conn, &project))
            .await
    }

    pub async fn update_project(
        &self,
        project: ProjectRef,
        update: ProjectUpdate,
        expect: Expect<Project>,
        by: By,
    ) -> Result<Project> {
        self.engine
            .write(move |tx| sqlite::projects::update(tx, &project, &update, &expect, &by))
            .await
    }

    /// A new slug is a new path, and what rules match from then on; a display name that is the old slug goes along.
    /// `Conflict(Project)` where a live one has the slug, `Refused(Managed)` where an operator owns the project.
    pub async fn edit_project(&self, project: ProjectRef, edit: ProjectEdit, by: By) -> Result<Project> {
        self.engine
            .write(move |tx| sqlite::projects::edit(tx, &project, edit, &by))
            .await
    }

    /// Hides it with all that it contains, kills its keys, and frees its slug.
    pub async fn delete_project(&self, project: ProjectRef, fate: Fate, by: By) -> Result<TrashId> {
        self.engine
            .write(move |tx| sqlite::projects::delete(tx, &project, (fate, &by)))
            .await
    }

    /// Gives it a new key. Earlier ones live for `overlap_seconds` more, or until their own deadline where that is
    /// sooner; at most the eight newest are kept.
    pub async fn rotate_project_key(
        &self,
        project: ProjectRef,
        key: NewKey,
        overlap_seconds: u64,
        by: By,
    ) -> Result<Rotated> {
        self.engine
            .write(move |tx| sqlite::projects::rotate_key(tx, &project, &key, overlap_seconds, &by))
            .await
    }
}

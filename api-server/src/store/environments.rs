//! Environments of a project.

use std::sync::Arc;

use sealpod_core::wire::Labels;
use sealpod_core::{Slug, Time};

use super::{By, EnvironmentRef, Expect, Fate, Location, Page, ProjectRef, Result, Store, sqlite};
use crate::ids::{EnvironmentId, TrashId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub id: EnvironmentId,
    pub slug: String,
    pub display_name: String,
    pub labels: Labels,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Clone)]
pub struct NewEnvironment {
    pub slug: Slug,
    pub display_name: String,
    pub labels: Labels,
}

#[derive(Debug, Clone)]
pub struct EnvironmentUpdate {
    pub display_name: String,
    /// `None` keeps the labels.
    pub labels: Option<Labels>,
}

impl Store {
    /// Where a live environment is.
    pub async fn location(&self, environment: EnvironmentRef) -> Result<Arc<Location>> {
        self.engine.location(environment).await
    }

    /// `Conflict(Environment)` where a live one has the slug.
    pub async fn create_environment(&self, project: ProjectRef, new: NewEnvironment, by: By) -> Result<Environment> {
        self.engine
            .write(move |tx| sqlite::environments::create(tx, &project, &new, &by))
            .await
    }

    /// Live environments by slug, of those that have every one of `labels`.
    pub async fn environments(&self, project: ProjectRef, labels: Labels, page: Page) -> Result<Vec<Environment>> {
        self.engine
            .read(move |view| sqlite::environments::list(view.conn, &project, &labels, &page))
            .await
    }

    pub async fn environment(&self, environment: EnvironmentRef) -> Result<(Location, Environment)> {
        self.engine
            .read(move |view| sqlite::environments::find(view.conn, &environment))
            .await
    }

    pub async fn update_environment(
        &self,
        environment: EnvironmentRef,
        update: EnvironmentUpdate,
        expect: Expect<Environment>,
        by: By,
    ) -> Result<Environment> {
        self.engine
            .write(move |tx| sqlite::environments::update(tx, &environment, &update, &expect, &by))
            .await
    }

    /// Hides it with its values and configurations, and frees its slug.
    pub async fn delete_environment(&self, environment: EnvironmentRef, fate: Fate, by: By) -> Result<TrashId> {
        self.engine
            .write(move |tx| sqlite::environments::delete(tx, &environment, (fate, &by)))
            .await
    }
}

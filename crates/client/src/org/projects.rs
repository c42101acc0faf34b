//! Projects, which the management plane calls applications.

use reqwest::Method;
use sealpod_core::wire::org::{CreateProject, Project, UpdateProject};

use super::Org;
use crate::Result;

impl Org<'_> {
    pub async fn projects(&self) -> Result<Vec<Project>> {
        self.client.get(self.at(&["projects"])?).await
    }

    pub async fn project(&self, project: &str) -> Result<Project> {
        self.client.get(self.at(&["projects", project])?).await
    }

    pub async fn create_project(&self, body: &CreateProject) -> Result<Project> {
        self.client.send(Method::POST, self.at(&["projects"])?, body).await
    }

    /// A new name is a new path.
    pub async fn update_project(&self, project: &str, body: &UpdateProject) -> Result<Project> {
        let target = self.at(&["projects", project])?;
        self.client.send(Method::PATCH, target, body).await
    }

    pub async fn delete_project(&self, project: &str) -> Result<()> {
        self.client.discard(self.at(&["projects", project])?).await
    }
}

//! Environments of a project.

use reqwest::Method;
use sealpod_core::wire::org::{CreateEnvironment, Environment};

use super::Org;
use crate::Result;

impl Org<'_> {
    pub async fn environments(&self, project: &str) -> Result<Vec<Environment>> {
        self.client.get(self.at(&["projects", project, "envs"])?).await
    }

    pub async fn environment(&self, project: &str, env: &str) -> Result<Environment> {
        self.client.get(self.at(&["projects", project, "envs", env])?).await
    }

    pub async fn create_environment(&self, project: &str, body: &CreateEnvironment) -> Result<Environment> {
        let target = self.at(&["projects", project, "envs"])?;
        self.client.send(Method::POST, target, body).await
    }

    pub async fn delete_environment(&self, project: &str, env: &str) -> Result<()> {
        self.client.discard(self.at(&["projects", project, "envs", env])?).await
    }
}

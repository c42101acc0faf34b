//! Secrets of one environment, and their versions.

use reqwest::Method;
use sealpod_core::wire::org::{
    PutSecret, Rollback, SecretListItem, SecretMetadata, SecretVersion, SecretWithValue, UpdateSecretVersion,
};

use super::{Org, Page};
use crate::Result;
use crate::path::query;

impl Org<'_> {
    /// By key, without values.
    pub async fn secrets(&self, project: &str, env: &str, page: Page<'_>) -> Result<Vec<SecretListItem>> {
        let limit = page.limit.map(|limit| limit.to_string());
        let query = query([("limit", limit.as_deref()), ("after", page.after)]);
        let target = self.at(&["projects", project, "envs", env, "secrets"])?;
        self.client.get(target + &query).await
    }

    /// The active version with its value.
    pub async fn secret(&self, project: &str, env: &str, key: &str) -> Result<SecretWithValue> {
        self.client.get(self.secret_at(project, env, key, &[])?).await
    }

    /// Appends a version.
    pub async fn put_secret(&self, project: &str, env: &str, key: &str, body: &PutSecret) -> Result<SecretMetadata> {
        let target = self.secret_at(project, env, key, &[])?;
        self.client.send(Method::PUT, target, body).await
    }

    /// Hides the secret in this environment.
    pub async fn delete_secret(&self, project: &str, env: &str, key: &str) -> Result<()> {
        self.client.discard(self.secret_at(project, env, key, &[])?).await
    }

    /// Newest first, without values.
    pub async fn secret_versions(&self, project: &str, env: &str, key: &str) -> Result<Vec<SecretVersion>> {
        self.client.get(self.secret_at(project, env, key, &["versions"])?).await
    }

    /// Switches a version on or off, or moves its window.
    pub async fn update_secret_version(
        &self,
        project: &str,
        env: &str,
        key: &str,
        version: u64,
        body: &UpdateSecretVersion,
    ) -> Result<SecretVersion> {
        let target = self.secret_at(project, env, key, &["versions", &version.to_string()])?;
        self.client.send(Method::PATCH, target, body).await
    }

    /// Appends a version with the value of an old one.
    pub async fn rollback_secret(&self, project: &str, env: &str, key: &str, body: Rollback) -> Result<SecretVersion> {
        let target = self.secret_at(project, env, key, &["rollback"])?;
        self.client.send(Method::POST, target, &body).await
    }

    fn secret_at(&self, project: &str, env: &str, key: &str, rest: &[&str]) -> Result<String> {
        let mut segments = vec!["projects", project, "envs", env, "secrets", key];
        segments.extend(rest);
        self.at(&segments)
    }
}

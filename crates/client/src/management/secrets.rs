//! Secrets of an application, in all of its environments.

use reqwest::Method;
use sealpod_core::wire::management::{CreateSecret, Secret, SecretSummary, SecretVersion, SetValue, UpdateVersion};

use super::{Management, at};
use crate::{Pages, Result};

impl<'a> Management<'a> {
    pub async fn secrets(&self, application: &str) -> Result<Vec<SecretSummary>> {
        self.0.get(at(&["applications", application, "secrets"])?).await
    }

    /// The same page by page, each of at most `limit` (1–1000).
    pub fn secret_pages(&self, application: &str, limit: u32) -> Result<Pages<'a, SecretSummary>> {
        let target = at(&["applications", application, "secrets"])?;
        Ok(Pages::of(self.0, target, String::new(), limit))
    }

    pub async fn secret(&self, application: &str, name: &str) -> Result<Secret> {
        self.0.get(at(&["applications", application, "secrets", name])?).await
    }

    pub async fn create_secret(&self, application: &str, body: &CreateSecret) -> Result<Secret> {
        let target = at(&["applications", application, "secrets"])?;
        self.0.send(Method::POST, target, body).await
    }

    pub async fn delete_secret(&self, application: &str, name: &str) -> Result<()> {
        self.0
            .discard(at(&["applications", application, "secrets", name])?)
            .await
    }

    /// Appends one version for each item, all of them or none.
    pub async fn set_values(&self, application: &str, name: &str, values: &[SetValue]) -> Result<()> {
        let target = at(&["applications", application, "secrets", name, "values"])?;
        self.0.send_only(Method::POST, target, values).await
    }

    /// Newest first.
    pub async fn versions(&self, application: &str, name: &str, environment: &str) -> Result<Vec<SecretVersion>> {
        let target = at(&["applications", application, "secrets", name, "versions", environment])?;
        self.0.get(target).await
    }

    /// The same page by page, each of at most `limit` (1–1000).
    pub fn version_pages(
        &self,
        application: &str,
        name: &str,
        environment: &str,
        limit: u32,
    ) -> Result<Pages<'a, SecretVersion>> {
        let target = at(&["applications", application, "secrets", name, "versions", environment])?;
        Ok(Pages::of(self.0, target, String::new(), limit))
    }

    /// Switches a version on or off, or moves its window.
    pub async fn update_version(
        &self,
        application: &str,
        name: &str,
        environment: &str,
        version: u64,
        body: &UpdateVersion,
    ) -> Result<SecretVersion> {
        let version = version.to_string();
        let segments = [
            "applications",
            application,
            "secrets",
            name,
            "versions",
            environment,
            &version,
        ];
        self.0.send(Method::PATCH, at(&segments)?, body).await
    }
}

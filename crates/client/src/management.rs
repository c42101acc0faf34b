//! The management plane: `/api/management`.

use reqwest::Method;
use sealpod_core::wire::management::{
    Application, Configuration, CreateApplication, CreateConfiguration, CreateEnvironment, CreateSecret,
    CreatedApplication, Environment, RotateApplicationKey, RotatedApplicationKey, Secret, SecretSummary, SecretVersion,
    SetValue, UpdateApplication, UpdateConfiguration, UpdateEnvironment,
};

use crate::path::{append, path};
use crate::{Client, Result};

/// Calls that need the admin key. Slugs and names are given as they are; escaping is done here.
#[derive(Debug, Clone, Copy)]
pub struct Management<'a>(pub(crate) &'a Client);

impl Management<'_> {
    /// Every application, or those that carry a label with this value.
    pub async fn applications(&self, label: Option<(&str, &str)>) -> Result<Vec<Application>> {
        let target = labelled(at(&["applications"])?, label);
        self.0.get(target).await
    }

    pub async fn application(&self, slug: &str) -> Result<Application> {
        self.0.get(at(&["applications", slug])?).await
    }

    pub async fn create_application(&self, body: &CreateApplication) -> Result<CreatedApplication> {
        self.0.send(Method::POST, at(&["applications"])?, body).await
    }

    pub async fn update_application(&self, slug: &str, body: &UpdateApplication) -> Result<Application> {
        self.0.send(Method::PUT, at(&["applications", slug])?, body).await
    }

    pub async fn delete_application(&self, slug: &str) -> Result<()> {
        self.0.delete(at(&["applications", slug])?).await
    }

    pub async fn rotate_application_key(&self, slug: &str, overlap_seconds: u64) -> Result<RotatedApplicationKey> {
        let target = at(&["applications", slug, "rotate-key"])?;
        let body = RotateApplicationKey { overlap_seconds };
        self.0.send(Method::POST, target, &body).await
    }

    /// Every environment of an application, or those that carry a label with this value.
    pub async fn environments(&self, application: &str, label: Option<(&str, &str)>) -> Result<Vec<Environment>> {
        let target = labelled(at(&["applications", application, "environments"])?, label);
        self.0.get(target).await
    }

    pub async fn create_environment(&self, application: &str, body: &CreateEnvironment) -> Result<Environment> {
        let target = at(&["applications", application, "environments"])?;
        self.0.send(Method::POST, target, body).await
    }

    pub async fn update_environment(
        &self,
        application: &str,
        environment: &str,
        body: &UpdateEnvironment,
    ) -> Result<Environment> {
        let target = at(&["applications", application, "environments", environment])?;
        self.0.send(Method::PUT, target, body).await
    }

    pub async fn delete_environment(&self, application: &str, environment: &str) -> Result<()> {
        self.0
            .delete(at(&["applications", application, "environments", environment])?)
            .await
    }

    pub async fn secrets(&self, application: &str) -> Result<Vec<SecretSummary>> {
        self.0.get(at(&["applications", application, "secrets"])?).await
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
            .delete(at(&["applications", application, "secrets", name])?)
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

    pub async fn configurations(&self, application: &str) -> Result<Vec<Configuration>> {
        self.0.get(at(&["applications", application, "configurations"])?).await
    }

    pub async fn create_configuration(&self, application: &str, body: &CreateConfiguration) -> Result<Configuration> {
        let target = at(&["applications", application, "configurations"])?;
        self.0.send(Method::POST, target, body).await
    }

    pub async fn update_configuration(
        &self,
        application: &str,
        environment: &str,
        key: &str,
        body: &UpdateConfiguration,
    ) -> Result<Configuration> {
        let target = at(&["applications", application, "configurations", environment, key])?;
        self.0.send(Method::PUT, target, body).await
    }

    pub async fn delete_configuration(&self, application: &str, environment: &str, key: &str) -> Result<()> {
        let target = at(&["applications", application, "configurations", environment, key])?;
        self.0.delete(target).await
    }
}

fn at(segments: &[&str]) -> Result<String> {
    path(["api", "management"].into_iter().chain(segments.iter().copied()))
}

fn labelled(mut target: String, label: Option<(&str, &str)>) -> String {
    if let Some((key, value)) = label {
        let mut query = String::new();
        append(&mut query, "label", &format!("{key}={value}"));
        target.push_str(&query);
    }
    target
}

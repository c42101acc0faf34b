//! Configurations of an application.

use reqwest::Method;
use sealpod_core::wire::management::{Configuration, CreateConfiguration, UpdateConfiguration};

use super::{Management, at};
use crate::{Pages, Result, Tagged};

impl<'a> Management<'a> {
    pub async fn configurations(&self, application: &str) -> Result<Vec<Configuration>> {
        self.0.get(at(&["applications", application, "configurations"])?).await
    }

    /// The same page by page, each of at most `limit` (1–1000) and of some MiB.
    pub fn configuration_pages(&self, application: &str, limit: u32) -> Result<Pages<'a, Configuration>> {
        let target = at(&["applications", application, "configurations"])?;
        Ok(Pages::of(self.0, target, String::new(), limit))
    }

    pub async fn configuration(&self, application: &str, environment: &str, key: &str) -> Result<Configuration> {
        let target = at(&["applications", application, "configurations", environment, key])?;
        self.0.get(target).await
    }

    /// With the tag of its state, for [`Client::if_match`](crate::Client::if_match).
    pub async fn tagged_configuration(
        &self,
        application: &str,
        environment: &str,
        key: &str,
    ) -> Result<Tagged<Configuration>> {
        let target = at(&["applications", application, "configurations", environment, key])?;
        self.0.get_tagged(target).await
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
        self.0.discard(target).await
    }
}

//! Environments of an application.

use reqwest::Method;
use sealpod_core::wire::management::{CreateEnvironment, Environment, UpdateEnvironment};

use super::{Management, at, labelled};
use crate::{Pages, Result, Tagged};

impl<'a> Management<'a> {
    /// Every environment of an application, or those that carry a label with this value.
    pub async fn environments(&self, application: &str, label: Option<(&str, &str)>) -> Result<Vec<Environment>> {
        let target = at(&["applications", application, "environments"])?;
        self.0.get(target + &labelled(label)).await
    }

    /// The same page by page, each of at most `limit` (1–1000).
    pub fn environment_pages(
        &self,
        application: &str,
        label: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Pages<'a, Environment>> {
        let target = at(&["applications", application, "environments"])?;
        Ok(Pages::of(self.0, target, labelled(label), limit))
    }

    pub async fn environment(&self, application: &str, environment: &str) -> Result<Environment> {
        let target = at(&["applications", application, "environments", environment])?;
        self.0.get(target).await
    }

    /// With the tag of its state, for [`Client::if_match`](crate::Client::if_match).
    pub async fn tagged_environment(&self, application: &str, environment: &str) -> Result<Tagged<Environment>> {
        let target = at(&["applications", application, "environments", environment])?;
        self.0.get_tagged(target).await
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
            .discard(at(&["applications", application, "environments", environment])?)
            .await
    }
}

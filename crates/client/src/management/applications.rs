//! Applications, which the organization plane calls projects.

use reqwest::Method;
use sealpod_core::wire::management::{
    Application, CreateApplication, CreatedApplication, RotateApplicationKey, RotatedApplicationKey, UpdateApplication,
};

use super::{Management, at, labelled};
use crate::{Pages, Result, Tagged};

impl<'a> Management<'a> {
    /// Every application, or those that carry a label with this value.
    pub async fn applications(&self, label: Option<(&str, &str)>) -> Result<Vec<Application>> {
        self.0.get(at(&["applications"])? + &labelled(label)).await
    }

    /// The same page by page, each of at most `limit` (1–1000).
    pub fn application_pages(&self, label: Option<(&str, &str)>, limit: u32) -> Result<Pages<'a, Application>> {
        Ok(Pages::of(self.0, at(&["applications"])?, labelled(label), limit))
    }

    pub async fn application(&self, slug: &str) -> Result<Application> {
        self.0.get(at(&["applications", slug])?).await
    }

    /// With the tag of its state, for [`Client::if_match`](crate::Client::if_match).
    pub async fn tagged_application(&self, slug: &str) -> Result<Tagged<Application>> {
        self.0.get_tagged(at(&["applications", slug])?).await
    }

    pub async fn create_application(&self, body: &CreateApplication) -> Result<CreatedApplication> {
        self.0.send(Method::POST, at(&["applications"])?, body).await
    }

    pub async fn update_application(&self, slug: &str, body: &UpdateApplication) -> Result<Application> {
        self.0.send(Method::PUT, at(&["applications", slug])?, body).await
    }

    pub async fn delete_application(&self, slug: &str) -> Result<()> {
        self.0.discard(at(&["applications", slug])?).await
    }

    pub async fn rotate_application_key(&self, slug: &str, overlap_seconds: u64) -> Result<RotatedApplicationKey> {
        let target = at(&["applications", slug, "rotate-key"])?;
        let body = RotateApplicationKey { overlap_seconds };
        self.0.send(Method::POST, target, &body).await
    }
}

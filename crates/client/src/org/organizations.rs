//! Organizations.

use reqwest::Method;
use sealpod_core::wire::people::{CreateOrganization, Organization, RenameOrganization};

use super::Org;
use crate::path::path;
use crate::{Client, Result};

impl Client {
    /// Those that the caller belongs to; a superadmin's are all.
    pub async fn organizations(&self) -> Result<Vec<Organization>> {
        self.get(path(["api", "orgs"])?).await
    }

    /// Makes an organization whose owner is the caller.
    pub async fn create_organization(&self, body: &CreateOrganization) -> Result<Organization> {
        self.send(Method::POST, path(["api", "orgs"])?, body).await
    }
}

impl Org<'_> {
    /// The organization itself.
    pub async fn get(&self) -> Result<Organization> {
        self.client.get(self.at(&[])?).await
    }

    /// Every path of the organization changes with its name.
    pub async fn rename(&self, body: &RenameOrganization) -> Result<Organization> {
        self.client.send(Method::PATCH, self.at(&[])?, body).await
    }

    pub async fn delete(&self) -> Result<()> {
        self.client.delete(self.at(&[])?).await
    }
}

//! Service accounts and their keys.

use reqwest::Method;
use sealpod_core::wire::org::{
    CreateServiceAccount, CreatedServiceAccount, RotateServiceAccount, RotatedServiceAccountKey, ServiceAccount,
};
use uuid::Uuid;

use super::Org;
use crate::Result;
use crate::path::query;

impl Org<'_> {
    /// Every account, or the one of exactly this name (as a list of none or one).
    pub async fn service_accounts(&self, name: Option<&str>) -> Result<Vec<ServiceAccount>> {
        let query = query([("name", name)]);
        self.client.get(self.at(&["service-accounts"])? + &query).await
    }

    /// Those that an operator made and nobody has used for a week.
    pub async fn orphans(&self) -> Result<Vec<ServiceAccount>> {
        self.client.get(self.at(&["orphans"])?).await
    }

    pub async fn service_account(&self, id: Uuid) -> Result<ServiceAccount> {
        self.client.get(self.at(&["service-accounts", &id.to_string()])?).await
    }

    pub async fn create_service_account(&self, body: &CreateServiceAccount) -> Result<CreatedServiceAccount> {
        self.client
            .send(Method::POST, self.at(&["service-accounts"])?, body)
            .await
    }

    /// A new key; earlier ones live on for `overlap_seconds`.
    pub async fn rotate_service_account(&self, id: Uuid, overlap_seconds: u64) -> Result<RotatedServiceAccountKey> {
        let target = self.at(&["service-accounts", &id.to_string(), "rotate"])?;
        let body = RotateServiceAccount { overlap_seconds };
        self.client.send(Method::POST, target, &body).await
    }

    /// Ends the account, its keys and its rules.
    pub async fn revoke_service_account(&self, id: Uuid) -> Result<()> {
        self.client
            .delete(self.at(&["service-accounts", &id.to_string()])?)
            .await
    }
}

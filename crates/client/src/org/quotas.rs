//! How much an organization may hold.

use reqwest::Method;
use sealpod_core::wire::quotas::{Quotas, SetQuotas};

use super::Org;
use crate::Result;

impl Org<'_> {
    pub async fn quotas(&self) -> Result<Quotas> {
        self.client.get(self.at(&["quotas"])?).await
    }

    /// For superadmins; what is left out stays.
    pub async fn set_quotas(&self, body: &SetQuotas) -> Result<Quotas> {
        self.client.send(Method::PUT, self.at(&["quotas"])?, body).await
    }
}

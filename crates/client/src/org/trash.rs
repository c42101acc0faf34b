//! What was deleted and can come back.

use reqwest::Method;
use sealpod_core::wire::trash::{Restored, TrashItem};
use uuid::Uuid;

use super::Org;
use crate::Result;

impl Org<'_> {
    /// Newest first.
    pub async fn trash(&self) -> Result<Vec<TrashItem>> {
        self.client.get(self.at(&["trash"])?).await
    }

    pub async fn trashed(&self, id: Uuid) -> Result<TrashItem> {
        self.client.get(self.at(&["trash", &id.to_string()])?).await
    }

    pub async fn restore(&self, id: Uuid) -> Result<Restored> {
        let target = self.at(&["trash", &id.to_string(), "restore"])?;
        self.client.call(Method::POST, target).send().await?.json()
    }

    /// Ends it for good.
    pub async fn purge(&self, id: Uuid) -> Result<()> {
        self.client.delete(self.at(&["trash", &id.to_string()])?).await
    }
}

//! Access rules.

use reqwest::Method;
use sealpod_core::wire::org::{AclRule, CreateAclRule};
use uuid::Uuid;

use super::Org;
use crate::Result;

impl Org<'_> {
    pub async fn acl_rules(&self) -> Result<Vec<AclRule>> {
        self.client.get(self.at(&["acl"])?).await
    }

    pub async fn acl_rule(&self, id: Uuid) -> Result<AclRule> {
        self.client.get(self.at(&["acl", &id.to_string()])?).await
    }

    /// Makes the rule, or replaces the one of the same subject and patterns.
    pub async fn grant(&self, body: &CreateAclRule) -> Result<AclRule> {
        self.client.send(Method::POST, self.at(&["acl"])?, body).await
    }

    pub async fn revoke_acl_rule(&self, id: Uuid) -> Result<()> {
        self.client.delete(self.at(&["acl", &id.to_string()])?).await
    }
}

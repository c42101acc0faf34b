//! Access rules.

use reqwest::Method;
use sealpod_core::wire::org::{AclRule, CreateAclRule, SubjectType};
use uuid::Uuid;

use super::Org;
use crate::Result;
use crate::path::query;

impl Org<'_> {
    pub async fn acl_rules(&self) -> Result<Vec<AclRule>> {
        self.client.get(self.at(&["acl"])?).await
    }

    /// The rules of one user or service account.
    pub async fn acl_rules_of(&self, subject_type: SubjectType, id: Uuid) -> Result<Vec<AclRule>> {
        let subject_type = match subject_type {
            SubjectType::User => "user",
            SubjectType::ServiceAccount => "service_account",
        };
        let id = id.to_string();
        let query = query([("subject_type", Some(subject_type)), ("subject_id", Some(&id))]);
        self.client.get(self.at(&["acl"])? + &query).await
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

//! The organization plane: `/api/orgs/{org}`.

use reqwest::Method;
use sealpod_core::wire::org::{
    AclRule, CreateAclRule, CreateServiceAccount, CreatedServiceAccount, PutSecret, RotateServiceAccount,
    RotatedServiceAccountKey, SecretMetadata, SecretWithValue, ServiceAccount, SubjectType,
};
use uuid::Uuid;

use crate::path::{append, path};
use crate::{Client, Result};

/// Calls within one organization. Names are given as they are; escaping is done here.
#[derive(Debug, Clone, Copy)]
pub struct Org<'a> {
    pub(crate) client: &'a Client,
    pub(crate) name: &'a str,
}

impl Org<'_> {
    /// Every account, or the one of exactly this name (as a list of none or one).
    pub async fn service_accounts(&self, name: Option<&str>) -> Result<Vec<ServiceAccount>> {
        let mut target = self.at(&["service-accounts"])?;
        if let Some(name) = name {
            let mut query = String::new();
            append(&mut query, "name", name);
            target.push_str(&query);
        }
        self.client.get(target).await
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

    pub async fn acl_rules(&self) -> Result<Vec<AclRule>> {
        self.client.get(self.at(&["acl"])?).await
    }

    /// The rules of one user or service account.
    pub async fn acl_rules_of(&self, subject_type: SubjectType, id: Uuid) -> Result<Vec<AclRule>> {
        let subject_type = match subject_type {
            SubjectType::User => "user",
            SubjectType::ServiceAccount => "service_account",
        };
        let mut query = String::new();
        append(&mut query, "subject_type", subject_type);
        append(&mut query, "subject_id", &id.to_string());
        self.client.get(self.at(&["acl"])? + &query).await
    }

    /// The accounts that an operator made and that nobody has used for a week.
    pub async fn orphans(&self) -> Result<Vec<ServiceAccount>> {
        self.client.get(self.at(&["orphans"])?).await
    }

    /// Makes the rule, or replaces the one of the same subject and patterns.
    pub async fn grant(&self, body: &CreateAclRule) -> Result<AclRule> {
        self.client.send(Method::POST, self.at(&["acl"])?, body).await
    }

    pub async fn revoke_acl_rule(&self, id: Uuid) -> Result<()> {
        self.client.delete(self.at(&["acl", &id.to_string()])?).await
    }

    pub async fn put_secret(&self, project: &str, env: &str, key: &str, body: &PutSecret) -> Result<SecretMetadata> {
        let target = self.at(&["projects", project, "envs", env, "secrets", key])?;
        self.client.send(Method::PUT, target, body).await
    }

    pub async fn secret(&self, project: &str, env: &str, key: &str) -> Result<SecretWithValue> {
        let target = self.at(&["projects", project, "envs", env, "secrets", key])?;
        self.client.get(target).await
    }

    pub(crate) fn at(&self, segments: &[&str]) -> Result<String> {
        path(["api", "orgs", self.name].into_iter().chain(segments.iter().copied()))
    }
}

//! ACL rules as they are kept; what they allow is decided above.

use sealpod_core::wire::org::{Permission, SubjectType};
use sealpod_core::{Pattern, Time};
use uuid::Uuid;

use super::{By, OrganizationRef, Result, Store, sqlite};
use crate::ids::{AccountId, OrganizationId, RuleId, UserId};

/// Whom a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    User(UserId),
    ServiceAccount(AccountId),
}

impl Subject {
    pub fn id(self) -> Uuid {
        match self {
            Self::User(UserId(id)) | Self::ServiceAccount(AccountId(id)) => id,
        }
    }

    pub fn kind(self) -> SubjectType {
        match self {
            Self::User(_) => SubjectType::User,
            Self::ServiceAccount(_) => SubjectType::ServiceAccount,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRule {
    pub id: RuleId,
    pub organization: OrganizationId,
    pub subject: Subject,
    /// The address of a user.
    pub email: Option<String>,
    pub project_pattern: Pattern,
    pub env_pattern: Pattern,
    pub key_pattern: Pattern,
    pub configurations: bool,
    pub permission: Permission,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Clone)]
pub struct NewRule {
    pub subject: Subject,
    pub project_pattern: Pattern,
    pub env_pattern: Pattern,
    pub key_pattern: Pattern,
    pub configurations: bool,
    pub permission: Permission,
}

/// Which rules of an organization are meant; by default all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleQuery {
    pub subject_type: Option<SubjectType>,
    pub subject_id: Option<Uuid>,
    /// Begin behind this rule, live or not.
    pub after: Option<RuleId>,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
}

impl Store {
    /// Makes the rule (`true`), or gives the live one of the same subject and patterns this permission (`false`).
    /// `NotFound(Subject)` where the organization has no such subject.
    pub async fn upsert_rule(
        &self,
        organization: impl Into<OrganizationRef>,
        new: NewRule,
        by: By,
    ) -> Result<(AclRule, bool)> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::acl::upsert(tx, &organization, &new, &by))
            .await
    }

    /// Live rules, oldest first.
    pub async fn rules(&self, organization: impl Into<OrganizationRef>, query: RuleQuery) -> Result<Vec<AclRule>> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::acl::list(view, &organization, query))
            .await
    }

    pub async fn rule(&self, organization: impl Into<OrganizationRef>, id: RuleId) -> Result<AclRule> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::acl::find(view.conn, &organization, id))
            .await
    }

    pub async fn delete_rule(&self, organization: impl Into<OrganizationRef>, id: RuleId, by: By) -> Result<()> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::acl::delete(tx, &organization, id, &by))
            .await
    }
}
